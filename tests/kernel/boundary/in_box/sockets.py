"""Prints every kind of socket that can be made here, and what comes of numbers with more bits than the kernel looks at."""

import ctypes
import errno
import json
import os
import socket

_LIBC = ctypes.CDLL(None, use_errno=True)
_FAMILIES = range(48)
_TYPES = (*range(1, 7), 10)
_INTERNET = {2, 10}
_HIGH = 1 << 32
_SYS_SOCKET = 41 if os.uname().machine == "x86_64" else 198


def main() -> None:
    made = [
        (family, kind, protocol)
        for family in _FAMILIES
        for kind in _TYPES
        for protocol in range(264 if family in _INTERNET else 32)
        if can_make(family, kind, protocol)
    ]
    pairs = [family for family in _FAMILIES for kind in (1, 2, 3, 5) if can_pair(family, kind)]
    print(json.dumps({"made": made, "pairs": sorted(set(pairs)), "wide": [try_wide(*row) for row in wide_rows()]}))


def can_make(family: int, kind: int, protocol: int) -> bool:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def can_pair(family: int, kind: int) -> bool:
    try:
        for end in socket.socketpair(family, kind):
            end.close()
    except OSError:
        return False
    return True


def wide_rows() -> list[tuple[int, int, int]]:
    """Packet, vsock, raw, netlink's audit family and SCTP, with bits that the kernel drops in front of one argument."""
    rows = [(17, 3, 3), (40, 1, 0), (2, 3, 255), (16, 3, 9), (2, 1, 132)]
    return [
        tuple(value | (_HIGH if place == position else 0) for place, value in enumerate(row))  # type: ignore[misc]  # always three
        for row in rows
        for position in range(3)
    ]


def try_wide(family: int, kind: int, protocol: int) -> str:
    arguments = (ctypes.c_ulong(value) for value in (family, kind, protocol))
    if _LIBC.syscall(ctypes.c_long(_SYS_SOCKET), *arguments) >= 0:
        return "made"
    return errno.errorcode[ctypes.get_errno()]


if __name__ == "__main__":
    main()
