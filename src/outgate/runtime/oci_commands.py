"""The part of the OCI driver that runs commands and moves files in sandboxes that are there."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from outgate.model.executions import LogLine
from outgate.runtime import execution_stdin
from outgate.runtime.base import (
    ExecOutput,
    ExecSpec,
    ExecState,
    KillScope,
    OutputStream,
    SandboxNotFoundError,
    SandboxUser,
)
from outgate.runtime.box_files import BoxFiles, FilePlace
from outgate.runtime.bundle import HostFacts
from outgate.runtime.cgroups import CgroupLayout
from outgate.runtime.checks import check_execution, check_file
from outgate.runtime.disk import SandboxDisks, SandboxRecord
from outgate.runtime.engine import Engine
from outgate.runtime.execution_activity import find_ends
from outgate.runtime.execution_files import SandboxPlace, execution_files
from outgate.runtime.execution_log import EXECUTIONS_MAX, read_log
from outgate.runtime.execution_start import ExecutionStarter
from outgate.runtime.executions import Executions, find_execution
from outgate.runtime.output_budget import OutputBudget
from outgate.runtime.seals import Seals
from outgate.runtime.shells import Shells

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CommandHost:
    """What a driver works with. ``parent``: the control group above all sandboxes'; ``run_dir`` is the driver's own."""

    engine: Engine
    facts: HostFacts
    layout: CgroupLayout
    parent: PurePosixPath
    disks: SandboxDisks
    run_dir: Path
    workers: ThreadPoolExecutor


class OciCommands(ABC):
    """See :class:`outgate.runtime.base.Runtime` for what each method promises."""

    def __init__(self, host: CommandHost) -> None:
        self._host = host
        self._seals = Seals()
        self._budget = OutputBudget()
        self._starter = ExecutionStarter(host.engine, host.facts, self._budget)
        self._executions = Executions()
        self._shells = Shells(self)
        self._files = BoxFiles(host.engine, host.facts, host.run_dir / "transfers", self._launch)
        self._exec_starts: dict[tuple[str, str], asyncio.Future[Any]] = {}
        self._unfinished: set[asyncio.Future[Any]] = set()

    @abstractmethod
    def _running_record(self, place: SandboxPlace) -> SandboxRecord:
        """The record of a sandbox that runs. Blocks. Raises :class:`SandboxNotFoundError`."""

    async def _recover_shells(self) -> None:
        places = await self._in_worker(lambda: [self._place(name) for name, _ in self._host.disks])
        for place in places:
            self._shells.recover(place)

    async def exec_start(self, devbox_id: str, spec: ExecSpec) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_start`."""
        check_execution(spec)
        place = self._place(devbox_id)
        if spec.shell is not None:
            await self._shells.submit(place, spec)
            return
        await self._started(place, spec.execution_id, lambda record: self._start_execution(place, record, spec))

    def _start_execution(self, place: SandboxPlace, record: SandboxRecord, spec: ExecSpec) -> None:
        self._starter.start(place, record, spec, self._host.layout.limiting_directories(place.group))

    async def enter_queue(self, place: SandboxPlace, spec: ExecSpec) -> bool:
        """See :class:`outgate.runtime.shells.ShellHost`."""

        def enter() -> bool:
            self._running_record(place)
            return self._starter.enter_queue(place, spec)

        return await self._in_worker(enter)

    async def start_queued(self, place: SandboxPlace, execution_id: str) -> None:
        """See :class:`outgate.runtime.shells.ShellHost`."""
        groups = self._host.layout.limiting_directories(place.group)
        try:
            await self._started(
                place, execution_id, lambda record: self._starter.start_queued(place, record, execution_id, groups)
            )
        except SandboxNotFoundError:
            # The sandbox was halted, and its shells with it.
            await self.exec_kill(place.devbox_id, execution_id)

    async def wait(self, place: SandboxPlace, execution_id: str, timeout_s: float) -> ExecState:
        """See :class:`outgate.runtime.shells.ShellHost`."""
        return await self._executions.wait(place, execution_id, timeout_s)

    async def _started(self, place: SandboxPlace, execution_id: str, start: Callable[[SandboxRecord], None]) -> None:
        # A second caller of the same id waits for the first one's start and shares its outcome.
        await self._uninterrupted(await self._launch(place, execution_id, lambda: start(self._running_record(place))))

    async def _launch(self, place: SandboxPlace, name: str, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """``work`` under way, which starts a process in the sandbox; known as such to whoever must not meet one."""
        key = (place.devbox_id, name)
        await self._seals.wait_until_over(place.devbox_id)
        if key not in self._exec_starts:
            starting = asyncio.ensure_future(self._in_worker(work))
            self._exec_starts[key] = starting
            starting.add_done_callback(lambda _: self._exec_starts.pop(key))
        return self._exec_starts[key]

    async def exec_state(self, devbox_id: str, execution_id: str) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_state`."""
        return await self.exec_wait(devbox_id, execution_id, 0.0)

    async def exec_wait(self, devbox_id: str, execution_id: str, timeout_s: float) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_wait`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        place = self._place(devbox_id)
        await self._begun(place, execution_id, timeout_s)
        return await self._executions.wait(place, execution_id, max(0.0, deadline_s - loop.time()))

    async def _begun(self, place: SandboxPlace, execution_id: str, timeout_s: float | None) -> None:
        """Wait until the execution has begun, if it waits for its turn (``timeout_s`` at most) or is being started."""
        await self._shells.await_turn(place.devbox_id, execution_id, timeout_s)
        starting = self._exec_starts.get((place.devbox_id, execution_id))
        if starting is not None:
            # Until its process is on record, an execution looks like one that ended.
            await asyncio.wait((starting,))

    async def exec_ends(self, devbox_id: str) -> Mapping[str, int | None]:
        """See :meth:`outgate.runtime.base.Runtime.exec_ends`."""
        place = self._place(devbox_id)
        return await self._in_worker(lambda: find_ends(place))

    async def exec_output(self, devbox_id: str, execution_id: str, stream: OutputStream, last_n: int) -> ExecOutput:
        """See :meth:`outgate.runtime.base.Runtime.exec_output`."""
        place = self._place(devbox_id)
        return await self._in_worker(lambda: self._executions.read_output(place, execution_id, stream, last_n))

    async def exec_stream(
        self, devbox_id: str, execution_id: str, stream: OutputStream, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """See :meth:`outgate.runtime.base.Runtime.exec_stream`."""
        place = self._place(devbox_id)
        find_execution(place, execution_id)

        async def follow() -> AsyncGenerator[bytes, None]:
            await self._begun(place, execution_id, None)
            pieces = self._executions.stream(place, execution_id, stream, offset)
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()

        return follow()

    async def exec_logs(self, devbox_id: str, execution_id: str | None, shell: str | None) -> tuple[LogLine, ...]:
        """See :meth:`outgate.runtime.base.Runtime.exec_logs`."""
        place = self._place(devbox_id)
        names = (execution_id,) if execution_id is not None else await self._in_worker(lambda: _newest(place))
        lines: list[LogLine] = []
        for name in names:
            files = find_execution(place, name) if execution_id is not None else execution_files(place.disk, name)
            about = files.read_about()
            if about is None or (shell is not None and about.shell != shell):
                continue
            state = await self.exec_state(devbox_id, name)
            read = partial(read_log, files, about, state, is_alone=execution_id is not None)
            lines += await self._in_worker(read)
        return tuple(sorted(lines, key=lambda line: line.time_ms))

    async def exec_kill(self, devbox_id: str, execution_id: str, scope: KillScope = KillScope.GROUP) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_kill`."""
        place = self._place(devbox_id)
        await self._in_worker(lambda: self._executions.kill(place, execution_id, scope))

    async def exec_interrupt(self, devbox_id: str, execution_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_interrupt`."""
        place = self._place(devbox_id)
        await self._in_worker(lambda: execution_stdin.interrupt(place, find_execution(place, execution_id)))

    async def exec_write_stdin(self, devbox_id: str, execution_id: str, data: bytes) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_write_stdin`."""
        place = self._place(devbox_id)
        await execution_stdin.write_stdin(place, find_execution(place, execution_id), data)

    async def exec_close_stdin(self, devbox_id: str, execution_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_close_stdin`."""
        place = self._place(devbox_id)
        await self._in_worker(lambda: execution_stdin.close_stdin(place, find_execution(place, execution_id)))

    def read_file(
        self, devbox_id: str, path: str, user: SandboxUser | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See :meth:`outgate.runtime.base.Runtime.read_file`."""
        return self._read_file(devbox_id, path, user)

    @asynccontextmanager
    async def _read_file(
        self, devbox_id: str, path: str, user: SandboxUser | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._files.read(await self._locate_file(devbox_id, path, user)) as pieces:
            yield pieces

    async def write_file(
        self, devbox_id: str, path: str, data: AsyncIterator[bytes], user: SandboxUser | None = None
    ) -> None:
        """See :meth:`outgate.runtime.base.Runtime.write_file`."""
        await self._files.write(await self._locate_file(devbox_id, path, user), data)

    async def _locate_file(self, devbox_id: str, path: str, user: SandboxUser | None) -> FilePlace:
        check_file(path, user)
        place = self._place(devbox_id)
        record = await self._in_worker(lambda: self._running_record(place))
        return FilePlace(place, record, path, user)

    async def _close_commands(self) -> None:
        await self._shells.aclose()
        if self._unfinished:
            await asyncio.wait(self._unfinished)
        self._executions.close()

    def _place(self, devbox_id: str) -> SandboxPlace:
        return SandboxPlace(devbox_id, self._host.disks[devbox_id], self._host.parent / devbox_id)

    async def _uninterrupted(self, work: Awaitable[None]) -> None:
        """Do ``work`` to its end, locks held, even if the caller is cancelled meanwhile: threads cannot be."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._finish)
        await asyncio.shield(task)

    def _finish(self, task: asyncio.Future[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not complain where nobody waits any more.
            task.exception()

    async def _in_worker(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._host.workers, work)


def _newest(place: SandboxPlace) -> tuple[str, ...]:
    """The executions that were asked for last, oldest first."""
    try:
        found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in place.disk.executions.iterdir())
    except FileNotFoundError:
        return ()
    return tuple(name for _, name in found[-EXECUTIONS_MAX:])
