"""The api in a process of its own, started and killed by tests; its sockets belong to the test."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

PROGRAM = Path(__file__).parent / "api_process.py"
KEY = "key-of-the-test"


class Running:
    """A started api; its sockets belong to the test, as they belong to the supervisor in real life."""

    def __init__(self, directory: Path, public: socket.socket, **environment: str) -> None:
        self._internal = socket.socket(socket.AF_UNIX)
        path = directory / f"api-{time.monotonic_ns()}.sock"
        self._internal.bind(str(path))
        self._internal.listen()
        user = environment.pop("user", "")
        url = f"sqlite:///{directory / 'outgate.db'}"
        fds = (public.fileno(), self._internal.fileno())
        arguments = [sys.executable, str(PROGRAM), url, str(fds[0]), str(fds[1]), environment.pop("key", KEY), user]
        # A file and not a pipe, which would fill and stop the process while nobody reads.
        self._log_path = directory / f"api-{time.monotonic_ns()}.log"
        self._log = self._log_path.open("w")
        paths = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            pass_fds=fds,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr()
        self.said: dict[str, Any] = json.loads(line)
        self.url = f"http://127.0.0.1:{public.getsockname()[1]}"

    def client(self, key: str = KEY) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=20)

    def stderr(self) -> str:
        return self._log_path.read_text()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        self._internal.close()


@contextlib.contextmanager
def run(directory: Path, public: socket.socket, **options: str) -> Iterator[Running]:
    running = Running(directory, public, **options)
    try:
        yield running
    finally:
        running.close()
