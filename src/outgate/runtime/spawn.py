"""Commands that are given exact descriptors, run from any thread.

posix_spawn(3) keeps the calling thread's mount namespace and copies nothing of the daemon's memory;
``subprocess`` could not put a pipe on descriptor 3 without running Python code in the child.
"""

import fcntl
import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgate.runtime.base import SandboxError

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # One processor for a Go runtime's own threads: a start took a tenth less so on two busy cores.
    "GOMAXPROCS": "1",
}
"""All that commands see of the environment. The daemon's own may hold keys and passwords."""

_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""What a command must not find ignored: an ignored signal stays ignored through execve(2), so a devbox's programs would
inherit it, unless the OCI runtime resets it (runc does). Python ignores SIGPIPE and SIGXFSZ, nohup(1) SIGHUP, a
script's shell SIGINT and SIGQUIT for what it starts in the background (POSIX.1-2017, XCU 2.11)."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A command that runs. It must be waited for, exactly once."""

    name: str
    pid: int

    def wait(self, timeout_s: float) -> int:
        """Its exit status. Blocks. Raises :class:`SandboxError`, after killing it, when it takes longer."""
        try:
            self._wait_for_end(timeout_s)
        finally:
            _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _wait_for_end(self, timeout_s: float) -> None:
        descriptor = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                raise SandboxError(f"{self.name} did not finish within {timeout_s:.0f} s.")
        finally:
            os.close(descriptor)


def spawn(arguments: Sequence[str | Path], descriptors: Mapping[int, int]) -> Spawned:
    """Start ``arguments`` with ``descriptors`` (its number → ours) and no others, in a session of its own.

    Raises OSError when there is no such program.
    """
    words = [os.fspath(argument) for argument in arguments]
    with ExitStack() as copies:
        actions: list[tuple[int, int, int] | tuple[int, int]] = []
        for number, own in sorted(descriptors.items()):
            # Copied out of the way first, so that no dup2 overwrites the source of a later one.
            copy = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, max(descriptors) + 1)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        # Python's own descriptors close by themselves; those of a C library or of this process's parent may not,
        # and a pump that outlives the daemon would hold the other end of, say, a control socket open.
        actions.extend((os.POSIX_SPAWN_CLOSE, own) for own in _inheritable() if own not in descriptors)
        pid = os.posix_spawn(
            words[0], words, ENVIRONMENT, file_actions=actions, setsid=True, setsigdef=_SIGNALS, setsigmask=()
        )
    return Spawned(words[0], pid)


def _inheritable() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        with suppress(OSError):
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def read_until_end(descriptor: int, bytes_max: int, timeout_s: float) -> bytes:
    """What can be read from a pipe until its end, at most ``bytes_max``, or until ``timeout_s`` passed without more."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = b""
    while len(data) < bytes_max and poll.poll(timeout_s * 1000):
        more = os.read(descriptor, bytes_max - len(data))
        if not more:
            break
        data += more
    return data
