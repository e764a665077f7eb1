import contextlib
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.conntrack import TrackedFlow, parse_flow
from outgate.dataplane.netlink import Message, NetlinkError, attribute, nest, u8, u16_net, u32_net


def flow_message(source: str, destination: str, mark: int) -> Message:
    first, second = ip_address(source), ip_address(destination)
    kinds = (1, 2) if first.version == 4 else (3, 4)
    addresses = nest(1, attribute(kinds[0], first.packed), attribute(kinds[1], second.packed))
    protocol = nest(2, u8(1, 6), u16_net(2, 40000), u16_net(3, 443))
    return Message(256, 2, 1, bytes(4) + nest(1, addresses, protocol) + u32_net(8, mark))


def test_a_flow_of_either_family() -> None:
    for source, destination in (("10.213.0.2", "45.45.46.1"), ("fd00::2", "2a0f::1")):
        flow = parse_flow(flow_message(source, destination, 0x8000_0010))
        assert flow == TrackedFlow(ip_address(source), ip_address(destination), 6, 40000, 443, 0x8000_0010)


def test_a_flow_without_ports_and_mark() -> None:
    addresses = nest(1, attribute(1, bytes(4)), attribute(2, bytes(4)))
    flow = parse_flow(Message(256, 2, 1, bytes(4) + nest(1, addresses, nest(2, u8(1, 253)))))
    assert flow == TrackedFlow(ip_address("0.0.0.0"), ip_address("0.0.0.0"), 253, 0, 0, 0)


def test_a_message_without_addresses_is_no_flow() -> None:
    assert parse_flow(Message(256, 2, 1, bytes(4))) is None


@given(st.binary(max_size=100))
def test_any_bytes_give_a_flow_nothing_or_a_netlink_error(data: bytes) -> None:
    with contextlib.suppress(NetlinkError):
        parse_flow(Message(256, 2, 1, data))
