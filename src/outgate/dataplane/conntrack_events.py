"""Flows that begin and end under a grant, as conntrack tells them (its groups NEW and DESTROY).

Flows without a mark are the relay's and the DNS gate's, which keep records of their own: a filter in the kernel leaves
them out before they take room here. The kernel's buffer is the queue. What finds no room there is lost, and counted.
"""

import errno
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from outgate.dataplane.conntrack import TrackedFlow, flow_from_attributes
from outgate.dataplane.netlink import (
    NETLINK_NETFILTER,
    Message,
    NetlinkError,
    NetlinkSocket,
    parse_attributes,
    parse_messages,
)
from outgate.dataplane.sysctl import read_sysctl
from outgate.model.addresses import Protocol

_GROUP_NEW, _GROUP_DESTROY = 1, 3
_MSG_NEW, _MSG_DELETE = 1 << 8 | 0, 1 << 8 | 2
_READS_MAX: Final = 64
"""Datagrams per call of ``read``: 2 ms at worst, so that a flood of flows does not hold up its reader."""
_READ_BYTES: Final = 4096
"""One event is some 300 bytes."""

# linux/netfilter/nfnetlink_conntrack.h: ctattr_type, ctattr_counters, ctattr_timestamp, ctattr_protoinfo.
_STATUS, _PROTO_INFO, _TIMEOUT, _MARK, _COUNTERS_ORIG, _COUNTERS_REPLY, _TIMESTAMP = 3, 4, 7, 8, 9, 10, 20
_COUNTER_BYTES: Final = 2
_TIMESTAMP_START, _TIMESTAMP_STOP = 1, 2
_PROTO_INFO_TCP: Final = 1
_TCP_STATE: Final = 1
_IS_ASSURED: Final = 1 << 2
_NS_PER_MS: Final = 1_000_000

# linux/filter.h. `nla` finds the attribute X in those that begin at A, and gives its place or 0.
_BPF_STEP: Final = struct.Struct("=HBBI")
_LD_IMM, _LDX_IMM, _LD_NLA, _TAX, _LD_WORD_AT_X, _JEQ, _RET = 0x00, 0x01, 0x20, 0x07, 0x40, 0x15, 0x06
_NLA: Final = 0xFFFF_F000 + 12
_ATTRIBUTES_AT: Final = 16 + 4
"""Behind the headers of netlink and nfnetlink."""
_HAS_MARK: Final = b"".join(
    _BPF_STEP.pack(*step)
    for step in (
        (_LD_IMM, 0, 0, _ATTRIBUTES_AT),
        (_LDX_IMM, 0, 0, _MARK),
        (_LD_NLA, 0, 0, _NLA),
        (_JEQ, 3, 0, 0),
        (_TAX, 0, 0, 0),
        (_LD_WORD_AT_X, 0, 0, 4),
        (_JEQ, 0, 1, 0),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, 0xFFFF_FFFF),
    )
)

# enum tcp_conntrack. States that lead to the end, by the setting that says how long a silent flow stays in them.
_TCP_TIMEOUTS: Final = {
    1: "tcp_timeout_syn_sent",
    2: "tcp_timeout_syn_recv",
    4: "tcp_timeout_fin_wait",
    5: "tcp_timeout_close_wait",
    6: "tcp_timeout_last_ack",
    7: "tcp_timeout_time_wait",
    8: "tcp_timeout_close",
}
_TCP_CLOSED_BY_BOTH: Final = frozenset({6, 7})
_UDP_TIMEOUTS: Final = ("udp_timeout", "udp_timeout_stream")
_ICMP_TIMEOUTS: Final = {Protocol.ICMP: "icmp_timeout", Protocol.ICMPV6: "icmpv6_timeout"}
SETTINGS: Final = (*_TCP_TIMEOUTS.values(), *_UDP_TIMEOUTS, *_ICMP_TIMEOUTS.values())
"""The settings of :func:`parse_events`, below ``net/netfilter/nf_conntrack_``."""


class FlowBegan(msgspec.Struct, frozen=True):
    """A flow whose first packet passed."""

    flow: TrackedFlow


class FlowEnded(msgspec.Struct, frozen=True):
    """A flow that the kernel has forgotten, and what it counted: whole IP packets, from the first to the last.

    ``began_ms`` is Unix time. ``is_closed``: both ends had said that they are done. ``is_cut``: it was forgotten before
    its time, by order.
    """

    flow: TrackedFlow
    began_ms: int
    duration_ms: int
    bytes_out: int
    bytes_in: int
    is_closed: bool
    is_cut: bool


FlowEvent = FlowBegan | FlowEnded


class FlowEventReader:
    """Listener on the marked flows of the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self.events = 0
        """Events read so far."""
        self.dropped = 0
        """Events lost so far: without room in the kernel's buffer, or without the counters that they should have."""
        self._lost = 0
        """How many of the dropped the kernel has counted."""
        self._is_overflowed = False
        found = {name: read_sysctl(f"netfilter/nf_conntrack_{name}") for name in SETTINGS}
        self._timeouts_s = {name: int(text) for name, text in found.items() if text is not None}
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        try:
            self._socket.join(_GROUP_NEW, _GROUP_DESTROY, only=_HAS_MARK)
        except OSError as error:
            self._socket.close()
            raise NetlinkError(error.errno or errno.EIO, "listening for tracked flows") from None

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._socket.close()

    def read(self) -> tuple[tuple[FlowEvent, ...], bool]:
        """Events since the last call, as far as one call takes them, and whether there may be more. Never blocks."""
        events: list[FlowEvent] = []
        for _ in range(_READS_MAX):
            try:
                data = self._socket.receive_waiting(_READ_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_overflowed = True
                self.dropped += 1
                continue
            if data is None:
                self._count_lost()
                return tuple(events), False
            self._take(data, events)
        return tuple(events), True

    def _take(self, data: bytes, events: list[FlowEvent]) -> None:
        try:
            found = parse_events(data, self._timeouts_s)
        except NetlinkError:
            self.dropped += 1
            return
        self.events += len(found)
        events += found

    def _count_lost(self) -> None:
        """Once the buffer is empty after it overflowed: the kernel says so once, and goes on dropping until then."""
        if self._is_overflowed:
            self._is_overflowed = False
            lost = self._socket.observe_dropped()
            # One is counted already.
            self.dropped += max(1, lost - self._lost & 0xFFFF_FFFF) - 1
            self._lost = lost


def parse_events(data: bytes, timeouts_s: Mapping[str, int]) -> list[FlowEvent]:
    """The events in one datagram of the kernel.

    ``timeouts_s`` are the namespace's values of :data:`SETTINGS`: so long a flow was silent before it was forgotten.
    Raises NetlinkError for what is malformed, and for an end that lacks its counters.
    """
    found = (_parse_message(message, timeouts_s) for message in parse_messages(data))
    return [event for event in found if event is not None]


def _parse_message(message: Message, timeouts_s: Mapping[str, int]) -> FlowEvent | None:
    if message.type not in (_MSG_NEW, _MSG_DELETE):
        return None
    parts = parse_attributes(message.payload[4:])
    flow = flow_from_attributes(parts)
    if flow is None:
        return None
    return FlowBegan(flow) if message.type == _MSG_NEW else _parse_end(flow, parts, timeouts_s)


def _parse_end(flow: TrackedFlow, parts: Mapping[int, bytes], timeouts_s: Mapping[str, int]) -> FlowEnded:
    times = parse_attributes(parts.get(_TIMESTAMP, b""))
    began_ms = _number(times, _TIMESTAMP_START, 8) // _NS_PER_MS
    stopped_ms = _number(times, _TIMESTAMP_STOP, 8) // _NS_PER_MS
    # Left out when it is nothing.
    remaining_s = _number(parts, _TIMEOUT, 4) if _TIMEOUT in parts else 0
    tcp_state = _tcp_state(parts)
    silent_s = max(0, timeouts_s.get(_timeout_name(flow.protocol, tcp_state, parts), 0) - remaining_s)
    return FlowEnded(
        flow,
        began_ms=began_ms,
        duration_ms=max(0, stopped_ms - began_ms - silent_s * 1000),
        bytes_out=_number(parse_attributes(parts.get(_COUNTERS_ORIG, b"")), _COUNTER_BYTES, 8),
        bytes_in=_number(parse_attributes(parts.get(_COUNTERS_REPLY, b"")), _COUNTER_BYTES, 8),
        is_closed=tcp_state in _TCP_CLOSED_BY_BOTH,
        is_cut=remaining_s > 0,
    )


def _number(parts: Mapping[int, bytes], kind: int, size: int) -> int:
    content = parts.get(kind, b"")
    if len(content) != size:
        raise NetlinkError(0, "reading an event", detail=f"attribute {kind} has {len(content)} bytes, not {size}")
    return int.from_bytes(content, "big")


def _tcp_state(parts: Mapping[int, bytes]) -> int:
    """The state that conntrack saw last; 0 for other protocols."""
    if _PROTO_INFO not in parts:
        return 0
    tcp = parse_attributes(parse_attributes(parts[_PROTO_INFO]).get(_PROTO_INFO_TCP, b""))
    return _number(tcp, _TCP_STATE, 1) if _TCP_STATE in tcp else 0


def _timeout_name(protocol: int, tcp_state: int, parts: Mapping[int, bytes]) -> str:
    """The setting by which the flow was forgotten; empty for an established TCP flow and for other protocols."""
    if protocol == Protocol.UDP:
        # A flow with answers after more than two seconds is a stream, and assured from then on.
        return _UDP_TIMEOUTS[bool(_number(parts, _STATUS, 4) & _IS_ASSURED)]
    if protocol in _ICMP_TIMEOUTS:
        return _ICMP_TIMEOUTS[Protocol(protocol)]
    return _TCP_TIMEOUTS.get(tcp_state, "")
