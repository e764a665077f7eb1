"""Runs inside a devbox (standard library only): a well-behaved neighbour, whose every request is timed.

Argument: a JSON object {"rounds", "names": [...], "address", "name"}. Each round asks the box's resolver for one of
``names`` by one datagram that is never sent again, and makes one TLS connection to ``address`` as ``name``. Prints
{"lookups": [seconds or null], "connections": [seconds or null]}; null is a request without an answer.
"""

import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOKUP_S_MAX = 5.0
CONNECTION_S_MAX = 10.0


def lookup(name: str, number: int) -> None:
    """Raises OSError when there is no answer with an address."""
    body = (
        b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!2H", 1, 1)
    )
    lines = Path("/etc/resolv.conf").read_text("ascii").splitlines()
    resolver = next(line.split()[1] for line in lines if line.startswith("nameserver"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(LOOKUP_S_MAX)
        flow.connect((resolver, 53))
        flow.send(struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + body)
        answer = flow.recv(2048)
    if answer[3] & 15 or not answer[7]:
        raise OSError(f"code {answer[3] & 15}, {answer[7]} records")


def connect(address: str, name: str) -> None:
    """Raises OSError when the far side does not answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((address, 443), CONNECTION_S_MAX)
    with plain, context.wrap_socket(plain, server_hostname=name) as flow:
        flow.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        if not flow.recv(100):
            raise OSError("no answer")


def timed(request: Callable[..., None], *arguments: object) -> float | None:
    """How long it took, None if it failed."""
    began_s = time.monotonic()
    try:
        request(*arguments)
    except OSError as error:
        print(error, file=sys.stderr)
        return None
    return time.monotonic() - began_s


def main() -> None:
    """All rounds."""
    spec = json.loads(sys.argv[1])
    lookups, connections = [], []
    for number in range(spec["rounds"]):
        name = spec["names"][number % len(spec["names"])]
        lookups.append(timed(lookup, name, number + 1))
        connections.append(timed(connect, spec["address"], spec["name"]))
    print(json.dumps({"lookups": lookups, "connections": connections}))


if __name__ == "__main__":
    main()
