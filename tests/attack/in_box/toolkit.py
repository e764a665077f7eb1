"""Runs inside a box (standard library only): what the programs of the corpus share.

Whether something was refused is for the far side to say; these functions only try, and give back what came.
"""

import contextlib
import os
import socket
import ssl
import struct
import time

__all__ = [
    "client_hello",
    "contextlib",
    "converse",
    "dns_query",
    "exchange",
    "http",
    "lookup",
    "os",
    "refused",
    "send_pieces",
    "socket",
    "ssl",
    "struct",
    "time",
    "tls",
    "udp",
    "unchecked_tls",
]

WAIT_S = 3.0


def refused() -> contextlib.suppress:
    """The network may refuse what is done inside; that is no mistake of the program.

    Time-outs, resets, TLS alerts and failed lookups are all OSErrors.
    """
    return contextlib.suppress(OSError, EOFError)


def lookup(name: str) -> list[str]:
    """The addresses of ``name`` by the box's own resolver, none if there are none."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def unchecked_tls() -> ssl.SSLContext:
    """A context that accepts any certificate: the far side's journal says who answered."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def exchange(address: str, port: int, data: bytes, wait_s: float = WAIT_S) -> bytes:
    """Connect, send ``data`` (bytes), give what comes back until the end or the wait is over."""
    answer = b""
    with refused(), socket.create_connection((address, port), wait_s) as flow:
        flow.settimeout(wait_s)
        if data:
            flow.sendall(data)
        while len(answer) < 65536 and (piece := flow.recv(65536)):
            answer += piece
            if not data or answer.endswith(b"\n"):
                break
    return answer


def http(address: str, host: str | None, port: int = 80, path: str = "/", head: str = "") -> bytes:
    """One plain request with ``host`` as its Host (none if None), and the answer."""
    lines = f"GET {path} HTTP/1.1\r\n" + (f"Host: {host}\r\n" if host is not None else "") + head
    return exchange(address, port, lines.encode("latin-1") + b"Connection: close\r\n\r\n")


def tls(
    address: str, server_name: str | None, host: str | None = None, port: int = 443, wait_s: float = WAIT_S
) -> bytes:
    """A whole handshake with ``server_name`` as SNI (none if None) and a request inside; the answer."""
    answer = b""
    with refused(), socket.create_connection((address, port), wait_s) as plain:
        plain.settimeout(wait_s)
        with unchecked_tls().wrap_socket(plain, server_hostname=server_name) as flow:
            flow.sendall(
                f"GET / HTTP/1.1\r\nHost: {host or server_name}\r\nConnection: close\r\n\r\n".encode("latin-1")
            )
            while piece := flow.recv(65536):
                answer += piece
    return answer


def udp(address: str, port: int, data: bytes = b"outgate", wait_s: float = 1.0) -> bytes:
    """One datagram, and the one that comes back."""
    with refused(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(wait_s)
        flow.connect((address, port))
        flow.send(data)
        return flow.recv(65536)
    return b""


def client_hello(server_name: str | None) -> bytes:
    """The bytes of a real ClientHello (one record) with ``server_name`` as SNI, none if None."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = unchecked_tls().wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def send_pieces(address: str, port: int, pieces: list[bytes], pause_s: float = 0.05, wait_s: float = WAIT_S) -> bytes:
    """Send each of ``pieces`` as a segment of its own; what comes back first."""
    with refused(), socket.create_connection((address, port), wait_s) as flow:
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flow.settimeout(wait_s)
        for piece in pieces:
            flow.sendall(piece)
            time.sleep(pause_s)
        return flow.recv(65536)
    return b""


def converse(address: str, port: int, pieces: list[bytes], wait_s: float, *, is_answered: bool = False) -> bytes:
    """Send each of ``pieces`` as a segment of its own, then the end; all that comes back.

    With ``is_answered`` each waits for an answer to the one before, and the end for an answer to the last.
    """
    answer = b""
    with refused(), socket.create_connection((address, port), wait_s) as flow:
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flow.settimeout(wait_s)
        for piece in pieces[:-1]:
            flow.sendall(piece)
            if is_answered:
                answer += flow.recv(65536)
            else:
                time.sleep(0.001)
        flow.sendall(pieces[-1])
        if is_answered:
            # Before the end of what is sent: proxies take that for a client who left.
            answer += flow.recv(65536)
        flow.shutdown(socket.SHUT_WR)
        while piece := flow.recv(65536):
            answer += piece
    return answer


def dns_query(name: str | bytes, type_: int = 1, number: int = 4711, flags: int = 0x0100, class_: int = 1) -> bytes:
    """One question as bytes; ``name`` is text (labels at dots) or bytes that are taken as the encoded name."""
    if isinstance(name, str):
        labels = [label.encode("utf-8") for label in name.rstrip(".").split(".")]
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", number, flags, 1, 0, 0, 0) + name + struct.pack("!2H", type_, class_)
