"""Runs inside a box (standard library only): DNS messages of every shape, and ways to send them."""

import contextlib
import select
import socket
import struct
from pathlib import Path

__all__ = [
    "addresses",
    "answers",
    "ask",
    "ask_all",
    "ask_tcp",
    "code",
    "labels",
    "message",
    "opt",
    "option",
    "question",
    "resolvers",
]


def resolvers() -> list[str]:
    """The DNS servers that this box was told to ask."""
    lines = Path("/etc/resolv.conf").read_text("ascii").splitlines()
    return [line.split()[1] for line in lines if line.startswith("nameserver")]


def labels(*parts: bytes) -> bytes:
    """A name of exactly these labels, whatever is in them."""
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def question(name: str | bytes, type_: int = 1, class_: int = 1) -> bytes:
    """``name`` is text with dots between its labels, or the encoded name."""
    encoded = name if isinstance(name, bytes) else labels(*(part.encode() for part in name.split(".")))
    return encoded + struct.pack("!2H", type_, class_)


def option(number: int, data: bytes) -> bytes:
    """One EDNS option (RFC 6891 §6.1.2)."""
    return struct.pack("!2H", number, len(data)) + data


def opt(options: bytes = b"", udp_bytes: int = 1232, flags: int = 0) -> bytes:
    """An OPT record; ``flags`` are its 32 bits of extended code, version, DO and the rest."""
    return b"\0" + struct.pack("!2HIH", 41, udp_bytes, flags, len(options)) + options


def message(
    body: bytes, counts: tuple[int, int, int, int] = (1, 0, 0, 0), number: int = 4711, flags: int = 0x0100
) -> bytes:
    """A header, and ``body`` as it is."""
    return struct.pack("!6H", number, flags, *counts) + body


def ask(sent: bytes, server: str | None = None, port: int = 53, wait_s: float = 2.0) -> bytes:
    """One message by UDP, and what comes back; nothing if nothing does."""
    return (ask_all([sent], server, port, wait_s) or [b""])[0]


def ask_all(sent: list[bytes], server: str | None = None, port: int = 53, wait_s: float = 1.0) -> list[bytes]:
    """Each of ``sent`` in a datagram of its own; what comes back until each can be answered, or it is quiet."""
    server = server or resolvers()[0]
    replies: list[bytes] = []
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as flow:
        with contextlib.suppress(OSError):
            flow.connect((server, port))
        for one in sent:
            with contextlib.suppress(OSError):
                flow.send(one)
        while len(replies) < len(sent) and select.select([flow], [], [], wait_s)[0]:
            with contextlib.suppress(OSError):
                replies.append(flow.recv(65536))
                continue
            break
    return replies


def ask_tcp(sent: bytes, server: str | None = None, port: int = 53, wait_s: float = 2.0) -> bytes:
    """Everything of ``sent`` on one connection, lengths included, and everything that comes back."""
    answer = b""
    place = (server or resolvers()[0], port)
    with contextlib.suppress(OSError), socket.create_connection(place, wait_s) as flow:
        flow.settimeout(wait_s)
        flow.sendall(sent)
        flow.shutdown(socket.SHUT_WR)
        while piece := flow.recv(65536):
            answer += piece
    return answer


def code(reply: bytes) -> int:
    """The response code; -1 for no reply."""
    return reply[3] & 15 if len(reply) > 3 else -1


def answers(reply: bytes) -> list[tuple[int, bytes]]:
    """(type, data) of every record of a well-formed ``reply``, in all sections."""
    if len(reply) < 12:
        return []
    questions, *counts = struct.unpack_from("!4H", reply, 4)
    offset, found = 12, []
    for _ in range(questions):
        offset = _skip(reply, offset) + 4
    for _ in range(sum(counts)):
        offset = _skip(reply, offset)
        type_, length = struct.unpack_from("!H6xH", reply, offset)
        found.append((type_, reply[offset + 10 : offset + 10 + length]))
        offset += 10 + length
    return found


def addresses(reply: bytes) -> list[str]:
    """The addresses in all sections of ``reply``, as text."""
    families = {1: socket.AF_INET, 28: socket.AF_INET6}
    return [socket.inet_ntop(families[type_], data) for type_, data in answers(reply) if type_ in families]


def _skip(reply: bytes, offset: int) -> int:
    while length := reply[offset]:
        if length >= 192:
            return offset + 2
        offset += 1 + length
    return offset + 1
