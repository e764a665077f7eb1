"""A server of flow records as the API's, whose every step the test decides; and a terminal to watch them on."""

import json
import os
import pty
import queue
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from outgate import clock

WAIT_S = 60.0
_TITLE = "outgate flows"
_ESCAPE = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")

FLOW: Mapping[str, Any] = {
    "number": 1,
    "time_ms": 1_764_000_000_000,
    "began_ms": 1_764_000_000_000,
    "count": 1,
    "devbox_id": "dbx_1",
    "policy_id": "npol_1",
    "revision": 1,
    "verdict": "deny",
    "reason": "name_not_allowed",
    "enforcement_point": "dns",
    "rule": None,
    "sentence": "x.org is not covered by policy 'p' (npol_1): add it to allowed_hostnames.",
    "hostname": "x.org",
    "address": None,
    "port": None,
    "protocol": None,
    "bytes_out": None,
    "bytes_in": None,
    "duration_ms": None,
}


def flow(number: int, **changes: object) -> dict[str, Any]:
    """A record."""
    return {**FLOW, "number": number, **changes}


class Feed:
    """Serves ``/v1/network-flows`` and its stream. ``asked`` has the cursor of each stream that was opened."""

    def __init__(self, *listed: Mapping[str, Any]) -> None:
        self._listed = listed
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._server = self._listen(0)
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, *flows: Mapping[str, Any]) -> None:
        """Send these on the stream that is open."""
        for one in flows:
            self._waiting.put(b"data: " + json.dumps(one).encode() + b"\n\n")

    def end_stream(self) -> None:
        """End the stream in good order, and wait until the client is back: the number after which it goes on."""
        self._waiting.put(None)

    def away(self) -> None:
        """Stop to listen: whoever comes is refused."""
        self._server.shutdown()
        self._server.server_close()
        self._waiting.put(None)

    def back(self) -> None:
        """Listen again, on the same port."""
        self._server = self._listen(self.port)

    def close(self) -> None:
        self.away()

    def _listen(self, port: int) -> ThreadingHTTPServer:
        feed = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                self.send_response(200)
                if not parts.path.endswith("/stream"):
                    body = json.dumps({"network_flows": feed._listed[::-1], "has_more": False}).encode()
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b": still here\n\n")
                feed.asked.put(int(parse_qs(parts.query)["starting_after"][0]))
                while (piece := feed._waiting.get()) is not None:
                    self.wfile.write(piece)

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server


class Screen:
    """A program on a terminal of its own; what it wrote, without the terminal's orders."""

    def __init__(self, *command: str, columns: int, rows: int, environment: Mapping[str, str]) -> None:
        self._near, far = pty.openpty()
        termios.tcsetwinsize(far, (rows, columns))
        self.process = subprocess.Popen(
            command,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows), **environment},
        )
        os.close(far)
        self.raw = b""

    @property
    def text(self) -> str:
        return _ESCAPE.sub(b"", self.raw).decode("utf-8", "replace")

    @property
    def last_frame(self) -> str:
        """What was drawn last and whole. Each drawing begins with the title, so a whole one is followed by another."""
        frames = self.text.split(_TITLE)[1:-1]
        return _TITLE + frames[-1] if frames else ""

    def await_text(self, pattern: str) -> str:
        """Wait until what was drawn last has ``pattern``; all of it."""
        deadline_s = clock.monotonic_s() + WAIT_S
        while not re.search(pattern, frame := "\n".join(self.last_frame.splitlines())):
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0 or not self._read(left_s):
                raise AssertionError(f"{pattern!r} was not drawn, but:\n{self.text[-3000:]}")
        return frame

    def press_interrupt(self) -> int:
        """Ctrl-C, as its keyboard sends it; how it ended."""
        os.write(self._near, b"\x03")
        while self._read(WAIT_S):
            pass
        return self.process.wait(WAIT_S)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._near], [], [], wait_s)[0]:
            return False
        try:
            piece = os.read(self._near, 65536)
        except OSError:  # the far end is closed
            return False
        self.raw += piece
        return bool(piece)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._near)


@contextmanager
def watching(feed: Feed, *options: str, columns: int = 160, rows: int = 30) -> Iterator[Screen]:
    """``outgate flows --follow`` on a terminal of that size."""
    # The terminal's Ctrl-C goes to a session's foreground group: the program must be in it, with the default action.
    claim = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-c", claim, "env", "--default-signal=INT", sys.executable, "-m", "outgate.cli.main"]
    words += ["flows", "--follow", "--url", feed.url, "--api-key", "key-of-the-test", *options]
    screen = Screen(*words, columns=columns, rows=rows, environment={})
    try:
        yield screen
    finally:
        screen.close()
