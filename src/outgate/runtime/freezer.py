"""Holding a sandbox still for a moment: the freezer of control groups, version 1 and 2.

A frozen process is stopped at a point between two system calls of its own, and nothing in the sandbox can tell.
The freeze outlives the daemon, so whoever starts next thaws (:func:`thaw`); a frozen process of version 1 does not
die of SIGKILL before it is thawed either.
"""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from outgate import clock
from outgate.runtime.base import SandboxError
from outgate.runtime.cgroups import CgroupLayout

_FREEZE_S_MAX: Final = 10.0
"""It takes milliseconds, unless a process hangs in uninterruptible I/O."""
_STEP_S: Final = 0.002
_FREEZER: Final = "freezer"
_STATE: Final = "freezer.state"


@contextmanager
def frozen(layout: CgroupLayout, group: PurePosixPath) -> Iterator[None]:
    """Keep every process of ``group`` still while the context lasts; thaws however it ends.

    Raises :class:`SandboxError` when they do not come to a stop, or this host cannot stop them.
    """
    try:
        _freeze(layout, group)
        yield
    finally:
        thaw(layout, group)


def thaw(layout: CgroupLayout, group: PurePosixPath) -> None:
    """Let the processes of ``group`` go on. Does nothing when they were not frozen or there are none.

    Raises :class:`SandboxError`.
    """
    file = _switch(layout, group)
    if file is None:
        return
    try:
        file.write_text("THAWED" if file.name == _STATE else "0")
    except OSError as error:
        # The group is gone, or goes at this moment.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise SandboxError(f"The processes of {group.name} cannot be let go: {error}.") from error


def _freeze(layout: CgroupLayout, group: PurePosixPath) -> None:
    file = _switch(layout, group)
    if file is None:
        raise SandboxError("This host has no freezer (control groups), so a running sandbox cannot be held still.")
    deadline_s = clock.monotonic_s() + _FREEZE_S_MAX
    try:
        while not _is_frozen_after_asking(file):
            if clock.monotonic_s() > deadline_s:
                raise SandboxError(f"The processes of {group.name} did not stop within {_FREEZE_S_MAX:.0f} s.")
            time.sleep(_STEP_S)
    except OSError as error:
        raise SandboxError(f"The processes of {group.name} cannot be held still: {error}.") from error


def _is_frozen_after_asking(file: Path) -> bool:
    # Version 1 is asked again each time: a process that forked while it was being frozen may have slipped through
    # (kernel documentation, freezer-subsystem: "FREEZING").
    if file.name == _STATE:
        file.write_text("FROZEN")
        return file.read_text().strip() == "FROZEN"
    file.write_text("1")
    return "frozen 1" in (file.parent / "cgroup.events").read_text().splitlines()


def _switch(layout: CgroupLayout, group: PurePosixPath) -> Path | None:
    """The file that freezes the group: version 1's where a host has both, since the OCI runtimes use that one too."""
    relative = group.relative_to("/")
    if _FREEZER in layout.controllers:
        return layout.controllers[_FREEZER] / relative / _STATE
    return None if layout.unified is None else layout.unified / relative / "cgroup.freeze"
