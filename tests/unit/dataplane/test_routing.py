"""Which addresses belong into the router namespace."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.dataplane.layout import choose_layout
from outgate.dataplane.links import LOOPBACK_INDEX
from outgate.dataplane.netlink import Message
from outgate.dataplane.routing import compare_addresses, wanted_routing
from outgate.dataplane.rtnetlink import set_address
from outgate.model.addresses import IPAddress

KERNELS = ((LOOPBACK_INDEX, IPv4Address("127.0.0.1")), (LOOPBACK_INDEX, IPv6Address("::1")))


def found(addresses: Iterable[tuple[int, IPAddress]]) -> list[Message]:
    """Those addresses as a dump shows them."""
    requests = (set_address(index, address) for index, address in addresses)
    return [Message(request.kind, 0, 0, request.payload) for request in requests]


@pytest.mark.parametrize("has_ipv6", [True, False])
@pytest.mark.parametrize("kernels", [KERNELS, KERNELS[:1], ()])
def test_the_loopback_devices_own_addresses_may_be_there_or_not(
    kernels: tuple[tuple[int, IPAddress], ...], has_ipv6: bool
) -> None:
    """A kernel that was started without IPv6 gives no ::1."""
    wanted = wanted_routing(choose_layout("abc123", (), has_ipv6=has_ipv6), ())
    assert list(compare_addresses(found((*wanted.addresses, *kernels)), wanted)) == []


def test_no_other_loopback_address_is_tolerated_nor_those_elsewhere() -> None:
    wanted = wanted_routing(choose_layout("abc123", ()), ())
    strange = ((LOOPBACK_INDEX, IPv4Address("127.0.0.2")), (LOOPBACK_INDEX + 1, IPv6Address("::1")))
    assert len(list(compare_addresses(found((*wanted.addresses, *strange)), wanted))) == 2


def test_the_layouts_own_addresses_are_missed() -> None:
    wanted = wanted_routing(choose_layout("abc123", ()), ())
    assert len(list(compare_addresses(found(KERNELS), wanted))) == len(wanted.addresses) > 0
