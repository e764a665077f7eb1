"""Processes of a gateway: started until they answer, killed without notice."""

import socket
import subprocess
import time
from collections.abc import Sequence

from attack.systems.namespace_box import COMMAND_S_MAX
from outgate import clock

_POLL_S = 0.02


def started(command: Sequence[str], *, address: str, port: int) -> subprocess.Popen[bytes]:
    """``command`` in the calling thread's namespace, once it takes connections on ``address``; dies with its parent.

    Raises RuntimeError when it ends or takes too long.
    """
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])
    deadline_s = clock.monotonic_s() + COMMAND_S_MAX
    while process.poll() is None and clock.monotonic_s() < deadline_s:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return process
    killed(process)
    raise RuntimeError(f"`{' '.join(command)}` did not start.")


def killed(process: subprocess.Popen[bytes]) -> None:
    """End it as a crash would."""
    process.kill()
    process.wait(timeout=COMMAND_S_MAX)
