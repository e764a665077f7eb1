"""``outgate serve`` as a process of its own, the way a person starts it."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from outgate import clock
from outgate.cli.connection import read_key
from outgate.errors import OutgateError
from outgate.settings import Settings, load_settings

START_S_MAX = 60.0
"""The first start makes the store and the stock image; later ones take a second."""
STOP_S_MAX = 40.0
"""The server gives its own children ten seconds each; a machine under load takes longer."""
_READY = "outgate ready on "


class DaemonError(OutgateError):
    """``outgate serve`` did not start, or did not stop."""

    code = "no_daemon"


class Daemon:
    """One ``outgate serve``. Its log goes to ``log_file``; its state stays when it ends, until :meth:`teardown`."""

    def __init__(
        self,
        state_dir: Path,
        *,
        namespace: Path | None = None,
        listen: str = "127.0.0.1:8080",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Not started yet. In ``namespace`` (a path for nsenter) or where the caller is."""
        self.state_dir = state_dir
        self.log_file = state_dir.with_name(state_dir.name + ".log")
        self.url = f"http://{listen}"
        self.start_s = 0.0
        self._listen = listen
        # Whoever started it is the one to clear up after it: a server that outlived a killed demo would be in the way.
        self._prefix = ["setpriv", "--pdeathsig", "KILL"]
        if namespace is not None:
            self._prefix += ["nsenter", f"--net={namespace}"]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start; see :meth:`start`."""
        try:
            return self.start()
        except OutgateError:
            self.teardown()
            raise

    def __exit__(self, *_: object) -> None:
        """Stop, and remove everything it made."""
        self.stop()
        self.teardown()

    @property
    def pid(self) -> int:
        """The supervisor's process id. Raises :class:`DaemonError` when it does not run."""
        if self._process is None:
            raise DaemonError("outgate serve is not running.")
        return self._process.pid

    @property
    def settings(self) -> Settings:
        """The settings by which this host's state is found."""
        return load_settings(state_dir=self.state_dir)

    @property
    def api_key(self) -> str:
        """The key that the first start made."""
        return read_key(self.settings)

    def start(self) -> Self:
        """Start, and return when it serves and enforces. Raises :class:`DaemonError` with the log's last lines."""
        began_s = clock.monotonic_s()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command("serve"), "--listen", self._listen],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        if not self._await_ready(self._process, began_s + START_S_MAX):
            self.stop()
            raise DaemonError(f"outgate serve did not start. The last lines of {self.log_file}:\n{self.log_tail()}")
        self.start_s = clock.monotonic_s() - began_s
        return self

    def stop(self) -> None:
        """SIGTERM, and wait. Devboxes stay. Raises :class:`DaemonError` when it had to be killed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DaemonError(f"outgate serve did not stop within {STOP_S_MAX:.0f} s of SIGTERM.") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def teardown(self) -> None:
        """``outgate teardown``: remove devboxes, namespaces and rules. Raises :class:`DaemonError` when it fails."""
        done = subprocess.run(
            self.command("teardown"), capture_output=True, text=True, env=self._environment, timeout=120, check=False
        )
        if done.returncode != 0:
            raise DaemonError(f"outgate teardown failed: {done.stderr.strip()}")

    def command(self, *arguments: str) -> list[str]:
        """The command line of an ``outgate`` subcommand for this state directory, in this daemon's namespace."""
        return [*self._prefix, sys.executable, "-m", "outgate.cli.main", *arguments, "--state-dir", str(self.state_dir)]

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log; nothing when there is none."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text("utf-8", "replace").splitlines()[-lines:])

    @staticmethod
    def _await_ready(process: subprocess.Popen[bytes], deadline_s: float) -> bool:
        if process.stdout is None:
            return False
        output = b""
        while (left_s := deadline_s - clock.monotonic_s()) > 0:
            if not select.select([process.stdout], [], [], left_s)[0]:
                break
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            output += piece
            if any(line.startswith(_READY) for line in output.decode("utf-8", "replace").splitlines()):
                return True
        return False
