"""Events of conntrack, as a kernel sent them and as none would."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.conntrack import TrackedFlow
from outgate.dataplane.conntrack_events import FlowBegan, FlowEnded, FlowEvent, parse_events
from outgate.dataplane.netlink import NetlinkError, attribute, message, nest, u8, u16_net, u32_net, u64_net

# What Linux 6.18 sent for a connection that carried 1,000 bytes out and 10 in, and was closed by both ends.
BEGAN = bytes.fromhex(
    "d8000000000100060000000000000000020000003400018014000180080001000ad5b002080002002d2d2e011c000280050001000600"
    "000006000200e79400000600030001bb00003400028014000180080001002d2d2e01080002000ad5b0021c0002800500010006000000"
    "0600020001bb000006000300e794000008000c009b9a287408000300000001880800070000000078300004802c000180050001000100"
    "0000050002000a00000005000300000000000600040003000000060005000000000008000800000000140c001b0018eacd7136dcff61"
)
ENDED = bytes.fromhex(
    "04010000020100000000000000000000020000003400018014000180080001000ad5b002080002002d2d2e011c000280050001000600"
    "000006000200e79400000600030001bb00003400028014000180080001002d2d2e01080002000ad5b0021c0002800500010006000000"
    "0600020001bb000006000300e794000008000c009b9a2874080003000000038e1c0009800c00010000000000000000060c0002000000"
    "0000000005281c000a800c00010000000000000000040c00020000000000000000e21c0014800c00010018eacd7136df5b7a0c000200"
    "18eacd738ae85648100004800c000180050001000700000008000800000000140c001b0018eacd74038c21c5"
)
FLOW = TrackedFlow(ip_address("10.213.176.2"), ip_address("45.45.46.1"), 6, 59284, 443, 20)
TIMEOUTS_S = {
    "tcp_timeout_time_wait": 10,
    "tcp_timeout_close": 7,
    "udp_timeout": 30,
    "udp_timeout_stream": 120,
    "icmp_timeout": 3,
}
NEW, DESTROY = 0x100, 0x102
BEGAN_NS = 1_700_000_000_000_000_000
S = 1_000_000_000


def tuple_of(source: str, destination: str, protocol: int, ports: tuple[int, int] | None) -> bytes:
    first, second = ip_address(source), ip_address(destination)
    kinds = (1, 2) if first.version == 4 else (3, 4)
    numbers = b"" if ports is None else u16_net(2, ports[0]) + u16_net(3, ports[1])
    addresses = nest(1, attribute(kinds[0], first.packed), attribute(kinds[1], second.packed))
    return nest(1, addresses, nest(2, u8(1, protocol), numbers))


def ended(
    protocol: int,
    *,
    lasted_ns: int,
    ports: tuple[int, int] | None = (40000, 443),
    status: int = 0x38A,
    remaining_s: int = 0,
    tcp_state: int | None = None,
) -> FlowEnded:
    """The event of a flow's end, through the parser."""
    ends = ("fd00::2", "2a0f::1") if protocol == 58 else ("10.213.0.2", "45.45.46.1")
    body = tuple_of(*ends, protocol, ports) + u32_net(3, status) + u32_net(8, 20)
    body += nest(9, u64_net(1, 2), u64_net(2, 5000)) + nest(10, u64_net(1, 1), u64_net(2, 2**40))
    body += nest(20, u64_net(1, BEGAN_NS), u64_net(2, BEGAN_NS + lasted_ns))
    body += u32_net(7, remaining_s) if remaining_s else b""
    body += b"" if tcp_state is None else nest(4, nest(1, u8(1, tcp_state)))
    (event,) = parse_events(message(DESTROY, 0, 0, bytes(4) + body), TIMEOUTS_S)
    assert isinstance(event, FlowEnded)
    return event


def test_what_a_kernel_sends() -> None:
    end = FlowEnded(FLOW, 1795473287596, 0, bytes_out=1320, bytes_in=226, is_closed=True, is_cut=False)
    assert parse_events(BEGAN + ENDED, TIMEOUTS_S) == [FlowBegan(FLOW), end]
    # What the flow was silent for before the kernel forgot it is no part of it.
    (event,) = parse_events(ENDED, {})
    assert isinstance(event, FlowEnded)
    assert event.duration_ms == 9999


@pytest.mark.parametrize(
    ("event", "duration_ms", "is_closed", "is_cut"),
    [
        pytest.param(ended(6, lasted_ns=25 * S, tcp_state=7), 15_000, True, False, id="closed by both"),
        pytest.param(ended(6, lasted_ns=25 * S, tcp_state=8), 18_000, False, False, id="reset"),
        pytest.param(ended(6, lasted_ns=25 * S, tcp_state=8, remaining_s=5), 23_000, False, True, id="reset and cut"),
        pytest.param(ended(6, lasted_ns=25 * S, tcp_state=3, remaining_s=9), 25_000, False, True, id="established"),
        pytest.param(ended(17, lasted_ns=31 * S), 1_000, False, False, id="one datagram"),
        pytest.param(ended(17, lasted_ns=31 * S, remaining_s=29), 30_000, False, True, id="cut datagrams"),
        pytest.param(ended(17, lasted_ns=121 * S, status=0x38A | 4), 1_000, False, False, id="a stream of datagrams"),
        pytest.param(ended(1, lasted_ns=4 * S, ports=None), 1_000, False, False, id="pings"),
        pytest.param(ended(58, lasted_ns=4 * S, ports=None), 4_000, False, False, id="unknown setting"),
        pytest.param(ended(47, lasted_ns=4 * S, ports=None), 4_000, False, False, id="other protocol"),
        pytest.param(ended(6, lasted_ns=S, tcp_state=7), 0, True, False, id="never less than nothing"),
        pytest.param(ended(6, lasted_ns=-S, tcp_state=3), 0, False, False, id="a clock set back"),
    ],
)
def test_how_long_a_flow_lasted(event: FlowEnded, duration_ms: int, *, is_closed: bool, is_cut: bool) -> None:
    assert (event.duration_ms, event.is_closed, event.is_cut) == (duration_ms, is_closed, is_cut)
    assert (event.bytes_out, event.bytes_in) == (5000, 2**40)
    assert event.began_ms == BEGAN_NS // 1_000_000


def test_a_flow_without_ports_is_told_without() -> None:
    assert ended(1, lasted_ns=0, ports=None).flow.destination_port == 0
    assert ended(58, lasted_ns=0, ports=None).flow.destination == ip_address("2a0f::1")


def test_what_is_no_event_of_a_flow_is_left_out() -> None:
    strange = message(0x103, 0, 0, bytes(4)) + message(NEW, 0, 0, bytes(4)) + message(DESTROY, 0, 0, b"")
    assert parse_events(strange, TIMEOUTS_S) == []


@pytest.mark.parametrize("kind", [9, 10, 20])
def test_an_end_without_its_counters_is_refused_and_not_told_as_nothing(kind: int) -> None:
    at = ENDED.index(bytes((0x1C, 0, kind, 0x80)))
    with pytest.raises(NetlinkError):
        parse_events(ENDED[: at + 2] + bytes((99,)) + ENDED[at + 3 :], TIMEOUTS_S)


@pytest.mark.parametrize("length", [3, 5, 15])
def test_an_address_of_a_strange_length_is_refused(length: int) -> None:
    addresses = nest(1, attribute(1, bytes(length)), attribute(2, bytes(4)))
    body = nest(1, addresses, nest(2, u8(1, 6)))
    with pytest.raises(NetlinkError):
        parse_events(message(NEW, 0, 0, bytes(4) + body), TIMEOUTS_S)


def survive(data: bytes) -> list[FlowEvent]:
    with contextlib.suppress(NetlinkError):
        return parse_events(data, TIMEOUTS_S)
    return []


@given(st.binary(max_size=120))
def test_any_bytes_give_events_or_a_netlink_error(data: bytes) -> None:
    survive(data)
    for kind in (NEW, DESTROY):
        survive(message(kind, 0, 0, bytes(4) + data))


@given(st.sampled_from([BEGAN, ENDED]), st.data())
def test_a_damaged_event_gives_events_of_that_kind_or_a_netlink_error(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(4, len(whole) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    for event in survive(bytes(damaged)):
        if isinstance(event, FlowEnded):
            assert event.duration_ms >= 0
            assert 0 <= event.bytes_out < 2**64
    survive(whole[: data.draw(st.integers(0, len(whole)))])
