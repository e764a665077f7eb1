"""Opens a WebSocket to the tunnel of its argument, says so by a file, and waits how it ends."""

import socket
import ssl
import sys
from pathlib import Path

name = sys.argv[1]
plain = socket.create_connection((name, 443), 5)
held = ssl.create_default_context().wrap_socket(plain, server_hostname=name)
held.sendall(
    f"GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: MDEy\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
)
head = b""
while b"\r\n\r\n" not in head:
    head += held.recv(200)
print(head.split()[1].decode())
Path("/tmp/held").touch()
held.settimeout(1000)
try:
    print("ended" if held.recv(1) == b"" else "data")
except OSError as error:
    print(type(error).__name__)
