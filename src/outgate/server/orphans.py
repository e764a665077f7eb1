"""Waits for processes whose parents are gone: what ran in devboxes outlives the agent's helpers that started it.

An ended process that nobody waits for keeps its place among the processes of its sandbox. That is the business of the
host's PID 1, which in a container is often no init at all, or Outgate itself.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

from outgate.privileges import adopt_orphans

_LOOK_AGAIN_S: Final = 0.05


def reap_orphans(is_awaited: Callable[[int], bool]) -> None:
    """Adopt orphans, and wait for each that ends, as long as the running event loop does.

    ``is_awaited`` says whether somebody else here waits for that process, or may be about to. Raises
    :class:`~outgate.privileges.PrivilegeError`.
    """
    loop = asyncio.get_running_loop()

    def look() -> None:
        while (pid := _find_ended()) is not None:
            if is_awaited(pid):
                # Those behind it are not to be seen until it is gone.
                loop.call_later(_LOOK_AGAIN_S, look)
                return
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    adopt_orphans()
    loop.add_signal_handler(signal.SIGCHLD, look)


def _find_ended() -> int | None:
    """A child that has ended, which stays as it is."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid
