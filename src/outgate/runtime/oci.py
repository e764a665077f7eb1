"""The OCI driver: a :class:`outgate.runtime.base.Runtime` over runc, crun or runsc.

Everything it needs to know after a restart is on disk or in the kernel: a sandbox is its directory with
its record, and it runs if the process in its pid file is in its control group. Nothing is asked of the
OCI runtime but to run, to exec and to delete. Blocking work is done by a few threads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from outgate.runtime import cgroups
from outgate.runtime.base import (
    ExecOutput,
    ExecSpec,
    ExecState,
    KillScope,
    ObservedSandbox,
    OutputStream,
    SandboxError,
    SandboxNotFoundError,
    SandboxPhase,
    SandboxSpec,
)
from outgate.runtime.boot import Booter
from outgate.runtime.checks import check_execution, check_sandbox
from outgate.runtime.disk import SandboxDisks, SandboxRecord, remove_tree
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.execution_start import ExecutionStarter
from outgate.runtime.executions import Executions
from outgate.runtime.host import observe_host
from outgate.runtime.images import ImageStore
from outgate.runtime.rootfs import Staging, plan_overlays
from outgate.runtime.usermap import IdRange, UserMaps, choose_range

Result = TypeVar("Result")

_WORKERS: Final = 8
"""Threads for blocking work: most of them wait for an OCI runtime, whose own work keeps two cores busy."""
_LOCKS: Final = 256
"""Starts and stops of one sandbox exclude each other. Sandboxes share locks by their ids' hash, so none has to be made
or forgotten; the more there are, the rarer one waits for another's."""
_STARTS_MAX: Final = 4
"""Sandboxes that start at once; more would only wait for each other's turn on the processors."""


@dataclass(frozen=True, slots=True)
class OciSettings:
    """``state_dir`` and ``run_dir`` are the runtime's own. ``instance`` tells several Outgates of one host apart."""

    engine: Engine
    state_dir: Path
    run_dir: Path
    instance: str


class OciRuntime:
    """See :class:`outgate.runtime.base.Runtime` for what each method promises."""

    def __init__(self, settings: OciSettings) -> None:
        self._layout = cgroups.observe_layout()
        self._parent = PurePosixPath("/") / f"outgate-{settings.instance}"
        self._disks = SandboxDisks(settings.state_dir)
        self._images = ImageStore(settings.state_dir)
        self._staging = Staging(settings.run_dir / "sandbox")
        self._maps = UserMaps()
        self._ranges: dict[str, IdRange] = {}
        facts = observe_host(self._layout)
        self._engine = settings.engine
        self._booter = Booter(settings.engine, facts, self._layout, self._staging, self._maps)
        self._starter = ExecutionStarter(settings.engine, facts)
        self._executions = Executions()
        self._locks = tuple(asyncio.Lock() for _ in range(_LOCKS))
        self._exec_starts: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._unfinished: set[asyncio.Future[None]] = set()
        self._starts = asyncio.Semaphore(_STARTS_MAX)
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="runtime")

    async def prepare(self) -> None:
        """Make the directories and the stock image, clear what an interrupted removal left, take up what there is.

        Call once, before anything else. Raises :class:`SandboxError` and OSError.
        """
        await self._in_worker(self._prepare)

    def _prepare(self) -> None:
        self._disks.ensure()
        self._staging.ensure()
        self._engine.root.mkdir(parents=True, exist_ok=True)
        self._images.ensure()
        self._images.refresh_stock()
        for devbox_id, disk in self._disks:
            record = disk.read_record()
            if record is not None:
                self._ranges[devbox_id] = record.ids

    async def start(self, spec: SandboxSpec) -> None:
        """See :meth:`outgate.runtime.base.Runtime.start`."""
        check_sandbox(spec)
        place = self._place(spec.devbox_id)
        await self._uninterrupted(self._start_alone(place, spec))

    async def _start_alone(self, place: SandboxPlace, spec: SandboxSpec) -> None:
        async with self._alone(spec.devbox_id), self._starts:
            is_new = spec.devbox_id not in self._ranges
            if is_new:
                # Chosen and entered here, without an await in between: no two sandboxes get one range.
                self._ranges[spec.devbox_id] = choose_range({taken.index for taken in self._ranges.values()})
            try:
                await self._in_worker(lambda: self._start(place, spec, self._ranges[spec.devbox_id]))
            except BaseException:
                if is_new:
                    del self._ranges[spec.devbox_id]
                raise

    def _start(self, place: SandboxPlace, spec: SandboxSpec, ids: IdRange) -> None:
        observed = self._observe(place)
        if observed is not None:
            if observed.phase is SandboxPhase.RUNNING and observed.generation == spec.generation:
                return
            # An earlier boot: its processes go, its disk is what the new one runs on.
            self._booter.halt(place)
        try:
            with self._images.resolve(spec.image) as image:
                known = replace(spec, environment={**image.environment, **spec.environment})
                record = SandboxRecord(known, ids, image.layers)
                if observed is None:
                    self._disks.create(spec.devbox_id, record)
                else:
                    place.disk.write_record(record)
            self._booter.boot(place, record, plan_overlays(image.layers, image.host_directories))
        except BaseException:
            if observed is None:
                self._disks.remove(spec.devbox_id)
            raise

    async def stop(self, devbox_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.stop`."""
        await self._uninterrupted(self._stop_alone(self._place(devbox_id)))

    async def _stop_alone(self, place: SandboxPlace) -> None:
        async with self._alone(place.devbox_id):
            await self._in_worker(lambda: self._stop(place))
            self._ranges.pop(place.devbox_id, None)

    def _stop(self, place: SandboxPlace) -> None:
        self._booter.halt(place)
        self._disks.remove(place.devbox_id)

    async def observe(self) -> Mapping[str, ObservedSandbox]:
        """See :meth:`outgate.runtime.base.Runtime.observe`."""
        return await self._in_worker(self._observe_all)

    def _observe_all(self) -> Mapping[str, ObservedSandbox]:
        observed = (self._observe(SandboxPlace(name, disk, self._parent / name)) for name, disk in self._disks)
        return {sandbox.devbox_id: sandbox for sandbox in observed if sandbox is not None}

    def _observe(self, place: SandboxPlace) -> ObservedSandbox | None:
        record = place.disk.read_record()
        if record is None:
            return None
        pid = place.disk.read_pid()
        # The control group is the proof: a number alone may be another process's by now.
        running = pid is not None and cgroups.holds_process(place.group, pid)
        return ObservedSandbox(
            devbox_id=place.devbox_id,
            generation=record.spec.generation,
            phase=SandboxPhase.RUNNING if running else SandboxPhase.EXITED,
            pid=pid if running else None,
            oom_kills=cgroups.count_oom_kills(self._layout, place.group),
        )

    async def exec_start(self, devbox_id: str, spec: ExecSpec) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_start`."""
        check_execution(spec)
        place = self._place(devbox_id)
        key = (devbox_id, spec.execution_id)
        if key not in self._exec_starts:
            starting = asyncio.ensure_future(self._in_worker(lambda: self._exec_start(place, spec)))
            self._exec_starts[key] = starting
            starting.add_done_callback(lambda _: self._exec_starts.pop(key))
        # A second caller of the same id waits for the first one's start and shares its outcome.
        await self._uninterrupted(self._exec_starts[key])

    def _exec_start(self, place: SandboxPlace, spec: ExecSpec) -> None:
        observed = self._observe(place)
        record = place.disk.read_record()
        if observed is None or record is None or observed.phase is not SandboxPhase.RUNNING:
            raise SandboxNotFoundError(f"Devbox {place.devbox_id} is not running on this host.")
        self._starter.start(place, record, spec, self._layout.limiting_directories(place.group))

    async def exec_state(self, devbox_id: str, execution_id: str) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_state`."""
        return await self.exec_wait(devbox_id, execution_id, 0.0)

    async def exec_wait(self, devbox_id: str, execution_id: str, timeout_s: float) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_wait`."""
        starting = self._exec_starts.get((devbox_id, execution_id))
        if starting is not None:
            # Until its process is on record, an execution looks like one that ended.
            await asyncio.wait((starting,))
        return await self._executions.wait(self._place(devbox_id), execution_id, timeout_s)

    async def exec_output(self, devbox_id: str, execution_id: str, stream: OutputStream, last_n: int) -> ExecOutput:
        """See :meth:`outgate.runtime.base.Runtime.exec_output`."""
        place = self._place(devbox_id)
        return await self._in_worker(lambda: self._executions.read_output(place, execution_id, stream, last_n))

    async def exec_kill(self, devbox_id: str, execution_id: str, scope: KillScope = KillScope.GROUP) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_kill`."""
        place = self._place(devbox_id)
        await self._in_worker(lambda: self._executions.kill(place, execution_id, scope))

    async def exec_write_stdin(self, devbox_id: str, execution_id: str, data: bytes) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_write_stdin`."""
        await self._executions.write_stdin(self._place(devbox_id), execution_id, data)

    async def exec_close_stdin(self, devbox_id: str, execution_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_close_stdin`."""
        place = self._place(devbox_id)
        await self._in_worker(lambda: self._executions.close_stdin(place, execution_id))

    async def teardown(self) -> None:
        """See :meth:`outgate.runtime.base.Runtime.teardown`."""
        names = await self._in_worker(lambda: [name for name, _ in self._disks])
        outcomes = await asyncio.gather(*(self.stop(name) for name in names), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise failures[0]
        await self._in_worker(self._remove_common)

    def _remove_common(self) -> None:
        if stuck := cgroups.remove_groups(self._layout.directories(self._parent)):
            raise SandboxError(f"Control groups are still in use: {', '.join(map(str, stuck))}.")
        self._staging.remove()
        remove_tree(self._engine.root)

    async def aclose(self) -> None:
        """See :meth:`outgate.runtime.base.Runtime.aclose`."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)
        self._executions.close()
        self._workers.shutdown(wait=True)
        self._maps.close()

    def _place(self, devbox_id: str) -> SandboxPlace:
        return SandboxPlace(devbox_id, self._disks[devbox_id], self._parent / devbox_id)

    async def _uninterrupted(self, work: Awaitable[None]) -> None:
        """Do ``work`` to its end, locks held, even if the caller is cancelled meanwhile: threads cannot be."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._finish)
        await asyncio.shield(task)

    def _finish(self, task: asyncio.Future[None]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not complain where nobody waits any more.
            task.exception()

    async def _in_worker(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _alone(self, devbox_id: str) -> asyncio.Lock:
        return self._locks[hash(devbox_id) % _LOCKS]
