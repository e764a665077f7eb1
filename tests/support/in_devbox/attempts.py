"""Runs inside a devbox (standard library only): tries what its first argument lists as JSON, one after the other.

Each attempt: {"kind": tls|http|raw|udp|icmp|lookup, "address", "port", "name", "wait_s", "size": of a datagram}. Prints one JSON list of
{"began_s", "ended_s", "outcome": answer|silent|<error name>, "detail"}; times are of the machine's monotonic clock.
"""

import json
import socket
import ssl
import struct
import sys
import time
from typing import Any

WAIT_S = 3.0
UDP_DATA = b"outgate"
ANSWER_BYTES_MAX = 65536
DETAIL_LENGTH_MAX = 400
ECHO_REQUEST, ECHO_REQUEST_V6 = 8, 128


def attempt(spec: dict[str, Any]) -> str:
    """What came back, as text. Raises OSError."""
    kind = spec["kind"]
    if kind == "lookup":
        found = socket.getaddrinfo(spec["name"], 443, type=socket.SOCK_STREAM)
        return " ".join(sorted({str(entry[4][0]) for entry in found}))
    family = socket.AF_INET6 if ":" in spec["address"] else socket.AF_INET
    wait_s = spec.get("wait_s", WAIT_S)
    if kind == "udp":
        return udp(family, (spec["address"], spec["port"]), wait_s, size=spec.get("size", len(UDP_DATA)))
    if kind == "icmp":
        return icmp(family, spec["address"], wait_s)
    with socket.create_connection((spec["address"], spec["port"]), wait_s) as plain:
        plain.settimeout(wait_s)
        if kind == "raw":
            plain.sendall(b"outgate\n")
            return plain.recv(2048).decode("latin-1")
        if kind == "http":
            return request(plain, spec["name"])
        with unchecked_tls().wrap_socket(plain, server_hostname=spec["name"]) as secured:
            return request(secured, spec["name"])


def unchecked_tls() -> ssl.SSLContext:
    """Who answers is judged by the far side's journal, not by its certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def request(connection: socket.socket, name: str | None) -> str:
    """GET /, with a Host where there is a name; without one it is HTTP/1.0, which may lack it."""
    head = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n" if name else "GET / HTTP/1.0\r\n\r\n"
    connection.sendall(head.encode("ascii"))
    answer = b""
    while len(answer) < ANSWER_BYTES_MAX and (piece := connection.recv(ANSWER_BYTES_MAX)):
        answer += piece
    return answer.decode("latin-1")


def udp(family: int, place: tuple[str, int], wait_s: float, *, size: int) -> str:
    """One datagram of that size, and the one that comes back."""
    with socket.socket(family, socket.SOCK_DGRAM) as exchange:
        exchange.settimeout(wait_s)
        exchange.connect(place)
        exchange.send(UDP_DATA.ljust(size, b"."))
        return exchange.recv(2048).decode("latin-1")


def icmp(family: int, address: str, wait_s: float) -> str:
    """An echo request, and its reply."""
    is_v4 = family == socket.AF_INET
    protocol = socket.IPPROTO_ICMP if is_v4 else socket.IPPROTO_ICMPV6
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as exchange:
        exchange.settimeout(wait_s)
        exchange.connect((address, 0))
        exchange.send(struct.pack("!BBHHH", ECHO_REQUEST if is_v4 else ECHO_REQUEST_V6, 0, 0, 0, 1))
        return f"{len(exchange.recv(2048))} bytes"


def main() -> None:
    """All attempts."""
    results = []
    for spec in json.loads(sys.argv[1]):
        began_s = time.monotonic()
        try:
            detail = attempt(spec)
            outcome = "answer" if detail else "silent"
        except TimeoutError:
            outcome, detail = "timeout", ""
        except (OSError, UnicodeError) as error:
            outcome, detail = type(error).__name__, str(error)
        ended_s = time.monotonic()
        results.append(
            {"began_s": began_s, "ended_s": ended_s, "outcome": outcome, "detail": detail[:DETAIL_LENGTH_MAX]}
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
