"""Runs inside a box (standard library only): many attempts at once, by ordinary sockets."""

import selectors
import socket
import time
from collections.abc import Iterable

TCP, UDP, PING = "tcp", "udp", "ping"
_PROTOCOLS = {TCP: (socket.SOCK_STREAM, 0), UDP: (socket.SOCK_DGRAM, 0), PING: (socket.SOCK_DGRAM, 1)}
Target = tuple[str, str, int]
"""Kind, address (with its zone where it needs one) and port."""


def targets(kinds: Iterable[str], addresses: Iterable[str], ports: Iterable[int]) -> list[Target]:
    """Every combination."""
    return [(kind, address, port) for kind in kinds for address in addresses for port in ports]


def opened(kind: str, address: str) -> socket.socket:
    """A socket for that kind of attempt that waits for nothing."""
    is_v6 = ":" in address
    type_, protocol = _PROTOCOLS[kind]
    if kind == PING and is_v6:
        protocol = socket.IPPROTO_ICMPV6
    made = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, type_, protocol)
    made.setblocking(False)
    return made


def fire(wanted: Iterable[Target], data: bytes = b"outgate", wait_s: float = 1.0) -> list[Target]:
    """Send ``data`` to every target at once, over TCP when it is connected; those that answered, if only by accepting.

    ``wait_s`` is for all of them together.
    """
    answered: list[Target] = []
    with selectors.DefaultSelector() as selector:
        waiting: dict[socket.socket, Target] = {}
        for target in wanted:
            began = _begun(target, data)
            if began is not None:
                waiting[began] = target
                selector.register(began, selectors.EVENT_WRITE if target[0] == TCP else selectors.EVENT_READ, began)
        end_s = time.monotonic() + wait_s
        while waiting and (left_s := end_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                flow: socket.socket = key.data
                selector.unregister(flow)
                target = waiting.pop(flow)
                if _is_answered(flow, target, data):
                    answered.append(target)
                flow.close()
        for flow in waiting:
            flow.close()
    return answered


def _begun(target: Target, data: bytes) -> socket.socket | None:
    kind, address, port = target
    try:
        made = opened(kind, address)
        if kind != TCP:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][4]
        # Only what is connected hears of errors, and has no need to wait for an answer then.
        made.connect_ex(where)
        if kind == UDP:
            made.send(data)
        elif kind == PING:
            made.send((b"\x80" if ":" in address else b"\x08") + bytes(7) + data)
    except OSError:
        return None
    return made


def _is_answered(flow: socket.socket, target: Target, data: bytes) -> bool:
    try:
        if target[0] != TCP:
            return bool(flow.recv(65536))
        if flow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        flow.send(data)
    except OSError:
        return False
    return True
