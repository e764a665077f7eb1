"""Listening sockets on addresses that are configured nowhere: the far namespace answers for every address."""

import socket
from ipaddress import IPv6Address, ip_address

BACKLOG = 4096


def bound_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket bound to ``address`` and ``port``. Raises OSError when the port is taken."""
    is_v6 = isinstance(ip_address(address), IPv6Address)
    bound = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if is_v6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{address} port {port}: {error.strerror}") from error
    return bound
