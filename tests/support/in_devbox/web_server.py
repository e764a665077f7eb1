"""A web server in a devbox, with the standard library alone: `python3 web_server.py ADDRESS PORT`."""

import base64
import hashlib
import json
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = b"x" * 65536
MORE_EVENTS = threading.Event()
"""Set by a request for /more-events: the streams of /events go on."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo_frames()
        elif self.path.startswith("/big/"):
            self._send_much(int(self.path.removeprefix("/big/")))
        elif self.path == "/events":
            self._send_events()
        elif self.path == "/more-events":
            MORE_EVENTS.set()
            self._answer(b"")
        elif self.path == "/broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
        elif self.path == "/nonsense":
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True
        else:
            said = {"path": self.path, "headers": self.headers.items(), "peer": self.client_address[0]}
            self._answer(json.dumps(said).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        count, digest = 0, hashlib.sha256()
        for piece in self._read_body():
            count += len(piece)
            digest.update(piece)
        self._answer(json.dumps({"count": count, "sha256": digest.hexdigest()}).encode())

    def _read_body(self) -> Any:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left:
            piece = self.rfile.read(min(left, len(PIECE)))
            left -= len(piece)
            yield piece

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_much(self, count: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(count))
        self.end_headers()
        while count:
            piece = PIECE[: min(count, len(PIECE))]
            self.wfile.write(piece)
            count -= len(piece)

    def _send_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: 0\n\n")
        MORE_EVENTS.wait()
        self.wfile.write(b"data: 1\n\ndata: 2\n\n")
        self.close_connection = True

    def _echo_frames(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = hashlib.sha1(key.encode(), usedforsecurity=False)
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept.digest()).decode())
        self.end_headers()
        self.close_connection = True
        while (head := self.rfile.read(2)) and len(head) == 2:
            size = head[1] & 0x7F
            if size == 126:
                size = struct.unpack("!H", self.rfile.read(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))
            if head[0] & 0x0F == 8:
                return
            length = bytes((size,)) if size < 126 else b"\x7e" + struct.pack("!H", size)
            self.wfile.write(bytes((head[0],)) + length + data)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
