"""Which addresses the server delivers to."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.ranges import ALWAYS_DENIED, classify
from outgate.core.webhook_addresses import refuse_receiver
from outgate.model.verdict import DenyReason

PUBLIC, PUBLIC6 = ip_address("45.45.45.60"), ip_address("2a0f:4444::60")
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("45.45.45.60", (), None),
        ("2a0f:4444::60", (), None),
        ("10.0.0.1", (), DenyReason.FLOOR_PRIVATE),
        ("127.0.0.1", (), DenyReason.FLOOR_LOOPBACK),
        ("::1", (), DenyReason.FLOOR_LOOPBACK),
        ("169.254.169.254", (), DenyReason.FLOOR_METADATA),
        ("::ffff:10.0.0.1", (), DenyReason.FLOOR_PRIVATE),
        ("64:ff9b::a00:1", (), DenyReason.FLOOR_PRIVATE),
        ("2002:a00:1::", (), DenyReason.FLOOR_PRIVATE),
        ("fd00:ec2::254", (), DenyReason.FLOOR_METADATA),
        ("0.0.0.0", (), DenyReason.FLOOR_UNSPECIFIED),
        ("10.0.0.1", ("10.0.0.0/24",), None),
        ("::ffff:10.0.0.1", ("10.0.0.0/24",), None),
        ("10.0.1.1", ("10.0.0.0/24",), DenyReason.FLOOR_PRIVATE),
        ("fd12::1", ("fd00::/8",), None),
        ("127.0.0.1", ("127.0.0.0/8",), None),
        # Wider than the range: not what was meant.
        ("10.0.0.1", ("0.0.0.0/0",), DenyReason.FLOOR_PRIVATE),
        ("127.0.0.1", ("126.0.0.0/7",), DenyReason.FLOOR_LOOPBACK),
        # Nothing opens these.
        ("169.254.169.254", ("169.254.169.254/32", "169.254.0.0/16"), DenyReason.FLOOR_METADATA),
        ("224.0.0.1", ("224.0.0.0/4",), DenyReason.FLOOR_MULTICAST),
        ("0.0.0.0", ("0.0.0.0/32",), DenyReason.FLOOR_UNSPECIFIED),
    ],
)
def test_the_floor_and_what_the_operator_opens_of_it(
    address: str, networks: tuple[str, ...], expected: DenyReason | None
) -> None:
    opened = tuple(ip_network(text) for text in networks)
    assert refuse_receiver(ip_address(address), opened, is_own=False) is expected


def test_the_servers_own_addresses_are_listed_by_themselves_or_closed() -> None:
    assert refuse_receiver(PUBLIC, (), is_own=True) is DenyReason.FLOOR_HOST
    assert refuse_receiver(PUBLIC, (ip_network("45.45.45.0/24"),), is_own=True) is DenyReason.FLOOR_HOST
    assert refuse_receiver(PUBLIC, (ip_network("45.45.45.60/32"),), is_own=True) is None
    private = ip_address("10.0.0.5")
    assert refuse_receiver(private, (ip_network("10.0.0.0/8"),), is_own=True) is DenyReason.FLOOR_HOST
    assert refuse_receiver(private, (ip_network("10.0.0.5/32"),), is_own=True) is None
    assert refuse_receiver(ip_address("127.0.0.1"), (ip_network("127.0.0.0/8"),), is_own=True) is None


@given(st.ip_addresses())
def test_without_networks_it_is_the_floor_and_nothing_opens_its_hard_part(address: object) -> None:
    target = ip_address(str(address))
    mapped = getattr(target, "ipv4_mapped", None)
    fixed = classify(mapped or target)
    assert refuse_receiver(target, (), is_own=False) is fixed
    if fixed in ALWAYS_DENIED - {DenyReason.FLOOR_LOOPBACK}:
        exactly = ip_network(str(mapped or target))
        assert refuse_receiver(target, (*EVERYWHERE, exactly), is_own=False) is fixed
