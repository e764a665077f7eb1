from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.layout import POOL4_PREFIX, POOLS4, NoFreePoolError, choose_layout

INSTANCES = st.integers(0, 0xFFFFFF).map(lambda value: f"{value:06x}")


@given(INSTANCES)
def test_names_fit_what_the_kernel_takes(instance: str) -> None:
    layout = choose_layout(instance, ())
    assert len(layout.uplink_host) <= 15
    assert len(layout.link(layout.slots_max - 1)) <= 15
    assert layout.pool4.subnet_of(POOLS4)
    assert layout.pool6.subnet_of(IPv6Network("fd00::/8"))


@given(INSTANCES, st.sets(st.integers(0, 15)))
def test_the_pool_is_free_or_the_host_is_told(instance: str, taken: set[int]) -> None:
    subnets = list(POOLS4.subnets(new_prefix=POOL4_PREFIX))
    used = [subnets[place] for place in taken]
    if len(taken) == len(subnets):
        with pytest.raises(NoFreePoolError, match="OUTGATE_DEVBOX_NETWORK4"):
            choose_layout(instance, used)
        return
    assert not any(choose_layout(instance, used).pool4.overlaps(network) for network in used)


def test_a_default_route_takes_no_pool() -> None:
    assert choose_layout("abc123", [IPv4Network("0.0.0.0/0")]).pool4.subnet_of(POOLS4)


def test_a_pool_that_was_chosen_is_kept_whatever_the_host_uses() -> None:
    first = choose_layout("abc123", ())
    assert choose_layout("abc123", [first.pool4], network4=first.pool4) == first


def test_a_larger_network_is_a_space_to_choose_from_and_a_smaller_one_the_pool() -> None:
    assert choose_layout("abc123", (), network4=IPv4Network("172.20.0.0/16")).pool4.prefixlen == 20
    small = choose_layout("abc123", (), network4=IPv4Network("172.20.0.0/26"))
    assert small.pool4 == IPv4Network("172.20.0.0/26")
    assert small.slots_max == 58
    with pytest.raises(ValueError, match="too small"):
        choose_layout("abc123", (), network4=IPv4Network("172.20.0.0/27"))


@pytest.mark.parametrize("instance", ["", "abc12", "ABC123", "abc1234", "../../"])
def test_an_instance_id_is_six_hex_digits(instance: str) -> None:
    with pytest.raises(ValueError, match="six hex digits"):
        choose_layout(instance, ())


def test_addresses_are_all_different_and_lie_in_the_pool() -> None:
    layout = choose_layout("abc123", (), network4=IPv4Network("10.80.0.0/26"))
    own = [layout.gateway4, layout.uplink_host4, layout.uplink_router4]
    boxes = [layout.address4(slot) for slot in range(layout.slots_max)]
    assert len({*own, *boxes}) == len(own) + layout.slots_max
    assert all(address in layout.pool4 for address in (*own, *boxes))
    assert layout.pool4.network_address not in boxes
    assert ip_network(f"{layout.uplink_host4}/30", strict=False) == ip_network(
        f"{layout.uplink_router4}/30", strict=False
    )
    for slot in (-1, layout.slots_max):
        with pytest.raises(ValueError, match="slot"):
            layout.address4(slot)
        with pytest.raises(ValueError, match="slot"):
            layout.address6(slot)


def test_without_ipv6_devboxes_have_no_address_of_it() -> None:
    assert choose_layout("abc123", (), has_ipv6=False).address6(0) is None
    assert choose_layout("abc123", ()).address6(0) == ip_address(int(choose_layout("abc123", ()).gateway6) + 1)
