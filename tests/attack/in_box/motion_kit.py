"""Runs inside a box (standard library only): programs that go on while something else happens, or after their end."""

import contextlib
import os
import socket
import time
from pathlib import Path

__all__ = ["await_go", "daemonise", "going", "keep_asking", "received"]

_END_S = 40.0
_began_s = time.monotonic()


def going(token: str, pause_s: float = 0.01) -> bool:
    """Whether to go on; False once the corpus said to stop, or after a long time."""
    time.sleep(pause_s)
    return time.monotonic() - _began_s < _END_S and not Path(f"/tmp/stop-{token}").exists()


def await_go(token: str) -> None:
    """Wait until the corpus said to go, or to stop."""
    while going(token) and not Path(f"/tmp/go-{token}").exists():
        pass


def keep_asking(flow: socket.socket, token: str, data: bytes) -> None:
    """Send ``data`` on ``flow`` and read what comes, over and over, until it breaks or the end."""
    flow.settimeout(0.5)
    with contextlib.suppress(ConnectionError, EOFError):
        while going(token):
            with contextlib.suppress(TimeoutError):
                flow.sendall(data)
                if not flow.recv(1 << 16):
                    break


def received(flow: socket.socket, for_s: float = 0.3) -> int:
    """Bytes that come on ``flow`` in this time; what had come before is not counted."""
    flow.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while flow.recv(1 << 20):
            pass
    end_s = time.monotonic() + for_s
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < end_s:
            time.sleep(0.01)
            with contextlib.suppress(BlockingIOError):
                count += len(flow.recv(1 << 20))
    return count


def daemonise() -> None:
    """Go on as a process that nobody waits for: the caller's process ends, a grandchild in a session of its own returns."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
