"""Destroying sockets from outside: what makes a program notice at once that its flow was revoked.

The kernel gives the socket an error (ECONNABORTED) and, for TCP, sends one reset to the far side.
"""

import errno
import struct
from collections.abc import Sequence
from typing import Final

from outgate.dataplane.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NetlinkClient,
    NetlinkError,
    message,
    parse_errno,
    parse_messages,
)
from outgate.model.addresses import IPAddress, Protocol

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DESTROY: Final = 21
_ALL_STATES: Final = 0xFFFF_FFFF
_NO_COOKIE: Final = 0xFFFF_FFFF
_AF_INET, _AF_INET6 = 2, 10
_HEAD: Final = struct.Struct("=BBBBI")
_PORTS: Final = struct.Struct(">HH")
_TAIL: Final = struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
_BATCH_MAX: Final = 512
"""Requests in one send, 72 bytes each."""

TcpEnds = tuple[IPAddress, int, IPAddress, int]
"""Own address and port, the other side's address and port, as the socket has them."""


class SockDiag(NetlinkClient):
    """Sockets of the network namespace the calling thread is in when this is made."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_SOCK_DIAG)

    def destroy_tcp(self, ends: Sequence[TcpEnds]) -> int:
        """Destroy the TCP sockets of these ends. Returns how many there were: some may be gone already.

        Raises NetlinkError; EOPNOTSUPP means the kernel was built without INET_DIAG_DESTROY.
        """
        return sum(self._destroy(ends[at : at + _BATCH_MAX]) for at in range(0, len(ends), _BATCH_MAX))

    def _destroy(self, ends: Sequence[TcpEnds]) -> int:
        """One send for all: a call for each would double what the kernel takes to send its resets."""
        first = self._socket.take_sequence(len(ends))
        last = first + len(ends) - 1
        # Whatever fails is answered anyhow; only the last one's success is, which says that all are done.
        self._socket.send(
            b"".join(
                message(_SOCK_DESTROY, NLM_F_REQUEST | (NLM_F_ACK if number == last else 0), number, _request(each))
                for number, each in enumerate(ends, first)
            )
        )
        missing = 0
        while True:
            for answer in parse_messages(self._socket.receive()):
                if answer.type != NLMSG_ERROR or not first <= answer.sequence <= last:
                    continue
                number = parse_errno(answer)
                if number not in (0, errno.ENOENT):
                    raise NetlinkError(number, "destroying a socket")
                missing += number == errno.ENOENT
                if answer.sequence == last:
                    return len(ends) - missing


def _request(ends: TcpEnds) -> bytes:
    """Struct inet_diag_req_v2 (linux/inet_diag.h) of one socket."""
    source, source_port, destination, destination_port = ends
    return b"".join(
        (
            _HEAD.pack(_AF_INET if source.version == 4 else _AF_INET6, Protocol.TCP, 0, 0, _ALL_STATES),
            _PORTS.pack(source_port, destination_port),
            source.packed.ljust(16, b"\0"),
            destination.packed.ljust(16, b"\0"),
            _TAIL,
        )
    )
