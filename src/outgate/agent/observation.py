"""Which sandboxes run: what the runtime observed, corrected by what is being done to them meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from outgate.runtime.base import ObservedSandbox, Runtime, SandboxPhase


class Sandboxes:
    """The sandboxes of this host as last seen. Belongs to the event loop's thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._seen: dict[str, ObservedSandbox] = {}
        self._in_work: set[str] = set()
        self._worked_on: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._seen))

    def get(self, devbox_id: str) -> ObservedSandbox | None:
        """The sandbox of a devbox, if there is one."""
        return self._seen.get(devbox_id)

    @contextmanager
    def working_on(self, devbox_id: str) -> Iterator[None]:
        """The sandbox is being started or stopped; an observation made meanwhile says nothing about it."""
        self._in_work.add(devbox_id)
        self._worked_on.add(devbox_id)
        try:
            yield
        finally:
            self._in_work.discard(devbox_id)

    def started(self, devbox_id: str, generation: int) -> None:
        """It runs; its process id comes with the next observation."""
        self._seen[devbox_id] = ObservedSandbox(devbox_id, generation, SandboxPhase.RUNNING, pid=None, oom_kills=0)

    def halted(self, devbox_id: str) -> None:
        """Its processes are gone; its disk, if it had one, is there."""
        seen = self._seen.get(devbox_id)
        if seen is not None:
            self._seen[devbox_id] = replace(seen, phase=SandboxPhase.EXITED, pid=None, oom_kills=0)

    def stopped(self, devbox_id: str) -> None:
        """Nothing of it is left."""
        self._seen.pop(devbox_id, None)

    async def observe(self) -> None:
        """Look at all of them. Raises what the runtime raises; then nothing has changed."""
        self._worked_on = set(self._in_work)
        observed = await self._runtime.observe()
        known = self._worked_on
        fresh = {devbox_id: sandbox for devbox_id, sandbox in observed.items() if devbox_id not in known}
        kept = {devbox_id: sandbox for devbox_id, sandbox in self._seen.items() if devbox_id in known}
        self._seen = fresh | kept


def is_in_namespace(pid: int, path: Path) -> bool:
    """Whether process ``pid`` is in the network namespace bound at ``path``; True for a process that is gone."""
    try:
        own = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:
        return True
    try:
        bound = path.stat()
    except OSError:
        return False
    return (own.st_dev, own.st_ino) == (bound.st_dev, bound.st_ino)
