"""Snapshots of this host's devboxes: sealing takes time, so it is begun, asked about and cleared away.

What is complete is an image of the runtime's, named by the snapshot's id, and outlives this process; what is under
way or failed is remembered here alone. So after a death of the agent an unfinished snapshot is simply not known, and
the api takes that for its end.
"""

import asyncio
from collections import OrderedDict
from typing import Final

import structlog

from outgate.errors import InvalidValueError
from outgate.model.snapshots import SnapshotPhase, SnapshotState
from outgate.runtime.base import Runtime, SandboxError

WAIT_S_MAX: Final = 30.0
FAILURES_MAX: Final = 1000
"""Failures remembered until the api has asked: it does so each second. The oldest are forgotten first."""
UNDER_WAY_MAX: Final = 200
"""Snapshots under way on one host: two are made at a time, the rest wait for their turn, their devboxes running."""


class Snapshots:
    """The snapshots of one host. Belongs to the event loop's thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._log = structlog.get_logger("snapshots")
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._failures: OrderedDict[str, str] = OrderedDict()

    async def start(self, snapshot_id: str, devbox_id: str) -> SnapshotState:
        """Begin the snapshot, or find it begun; one too many is refused as an error."""
        known = await self.read(snapshot_id, wait_s=0)
        if known is not None:
            return known
        if snapshot_id not in self._under_way:  # since the question was asked
            if len(self._under_way) >= UNDER_WAY_MAX:
                detail = f"{UNDER_WAY_MAX} snapshots are under way on this host; wait for some of them."
                return SnapshotState(SnapshotPhase.ERROR, detail=detail)
            task = asyncio.get_running_loop().create_task(self._seal(snapshot_id, devbox_id))
            self._under_way[snapshot_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(snapshot_id))
        return SnapshotState(SnapshotPhase.IN_PROGRESS)

    async def read(self, snapshot_id: str, *, wait_s: float) -> SnapshotState | None:
        """The snapshot once it is over, or as it is after ``wait_s``. None: no such snapshot here."""
        task = self._under_way.get(snapshot_id)
        if task is not None:
            await asyncio.wait((task,), timeout=min(max(wait_s, 0.0), WAIT_S_MAX))
            if snapshot_id in self._under_way:
                return SnapshotState(SnapshotPhase.IN_PROGRESS)
        failure = self._failures.get(snapshot_id)
        if failure is not None:
            return SnapshotState(SnapshotPhase.ERROR, detail=failure)
        size_bytes = await self._runtime.find_image_size(snapshot_id)
        return None if size_bytes is None else SnapshotState(SnapshotPhase.COMPLETE, size_bytes=size_bytes)

    async def remove(self, snapshot_id: str) -> bool:
        """Clear away what there is of it; false while it is still being made."""
        if snapshot_id in self._under_way:
            return False
        self._failures.pop(snapshot_id, None)
        await self._runtime.remove_image(snapshot_id)
        return True

    async def aclose(self) -> None:
        """Let go of those under way; nobody will hear of them."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _seal(self, snapshot_id: str, devbox_id: str) -> None:
        try:
            await self._runtime.seal(devbox_id, snapshot_id)
        except (SandboxError, InvalidValueError, OSError) as error:
            self._fail(snapshot_id, devbox_id, str(error))
        except Exception as error:  # noqa: BLE001 - a mistake of ours must end the snapshot, not leave it hanging
            self._log.error("snapshot_defect", snapshot_id=snapshot_id, devbox_id=devbox_id, exc_info=error)
            self._fail(snapshot_id, devbox_id, "Outgate made a mistake; its log has the details.")

    def _fail(self, snapshot_id: str, devbox_id: str, detail: str) -> None:
        self._log.warning("snapshot_failed", snapshot_id=snapshot_id, devbox_id=devbox_id, detail=detail)
        self._failures[snapshot_id] = detail
        if len(self._failures) > FAILURES_MAX:
            self._failures.popitem(last=False)
