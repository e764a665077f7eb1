"""The processes of a running ``outgate serve``."""

import contextlib
import time
from enum import StrEnum
from pathlib import Path

from outgate.cli.demo.daemon import Daemon

STARTED_S_MAX = 30.0


class Part(StrEnum):
    """A process of the server, by its module."""

    GATE = "outgate.dataplane.gate"
    AGENT = "outgate.server.agent_process"
    API = "outgate.server.api_process"


def find_process(daemon: Daemon, part: Part) -> int:
    """The id of the process that is ``part``; waits for one that is being started again."""
    deadline_s = time.monotonic() + STARTED_S_MAX
    while time.monotonic() < deadline_s:
        found = [pid for pid, command in descendants(daemon.pid).items() if f"-m {part} " in command]
        if found:
            return min(found)
        time.sleep(0.05)
    raise AssertionError(f"no {part.name} among {descendants(daemon.pid)}")


def descendants(pid: int) -> dict[int, str]:
    """Process ids below ``pid``, with their command lines."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            parents[int(path.parent.name)] = int(path.read_text("ascii", "replace").rpartition(")")[2].split()[1])
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    commands = {}
    for child in below - {pid}:
        with contextlib.suppress(OSError):
            commands[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return commands
