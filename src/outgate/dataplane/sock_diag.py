"""Destroying sockets from outside: what makes a program notice at once that its flow was revoked.

The kernel gives the socket an error (ECONNABORTED) and, for TCP, sends one reset to the far side.
"""

import errno
import struct
from types import TracebackType
from typing import Final, Self

from outgate.dataplane.netlink import NetlinkError, NetlinkSocket
from outgate.model.addresses import IPAddress, Protocol

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DESTROY: Final = 21
_ALL_STATES: Final = 0xFFFF_FFFF
_NO_COOKIE: Final = 0xFFFF_FFFF
_AF_INET, _AF_INET6 = 2, 10


class SockDiag:
    """Sockets of the network namespace the calling thread is in when this is made."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(_NETLINK_SOCK_DIAG)

    def close(self) -> None:
        """Give the socket back. May be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def destroy_tcp(self, source: IPAddress, source_port: int, destination: IPAddress, destination_port: int) -> int:
        """Destroy the TCP socket of these ends, seen from here. Returns 1, or 0 when there is none.

        Raises NetlinkError; EOPNOTSUPP means the kernel was built without INET_DIAG_DESTROY.
        """
        family = _AF_INET if source.version == 4 else _AF_INET6
        payload = struct.pack("=BBBBI", family, Protocol.TCP, 0, 0, _ALL_STATES)
        payload += struct.pack(">HH", source_port, destination_port)
        payload += source.packed.ljust(16, b"\0") + destination.packed.ljust(16, b"\0")
        payload += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        try:
            self._socket.request(_SOCK_DESTROY, 0, payload, doing="destroying a socket")
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return 0
            raise
        return 1
