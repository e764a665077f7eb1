"""Who is at the other end of a unix socket, by the kernel's word."""

import socket
import struct
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


def peer_uid(connected: socket.socket) -> int:
    """The user whom the process at the other end was when it connected. Raises OSError."""
    _pid, uid, _gid = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return int(uid)
