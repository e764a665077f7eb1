"""Shells that last: the commands of one name run one after the other, each where the one before ended.

What passes from one command to the next is in the sandbox (:mod:`outgate.runtime.shell_script`); here is only
whose turn it is. A mark in the sandbox's directory for each command that is not completed lets the next daemon
take up the lines where this one left them.
"""

import asyncio
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from outgate.runtime.base import ExecSpec, ExecState, ExecStatus, SandboxBusyError, SandboxError
from outgate.runtime.execution_files import SandboxPlace, execution_files

WAITING_MAX: Final = 100
"""Commands that wait in one shell. More than a person types ahead; each holds a directory on the host."""
_WAIT_S: Final = 60.0


class ShellHost(Protocol):
    """What the lines need of the runtime."""

    async def enter_queue(self, place: SandboxPlace, spec: ExecSpec) -> bool:
        """Take note of the execution; False when it is known already. Raises :class:`SandboxError`."""

    async def start_queued(self, place: SandboxPlace, execution_id: str) -> None:
        """Start it, unless it was given up; what cannot be started is completed. Raises :class:`SandboxError`."""

    async def wait(self, place: SandboxPlace, execution_id: str, timeout_s: float) -> ExecState:
        """As :meth:`outgate.runtime.base.Runtime.exec_wait`."""


@dataclass(slots=True)
class _Turn:
    execution_id: str
    begun: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Line:
    place: SandboxPlace
    turns: deque[_Turn] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Shells:
    """The lines of all shells of one host. Belongs to the event loop's thread."""

    def __init__(self, host: ShellHost) -> None:
        self._host = host
        self._lines: dict[tuple[str, str], _Line] = {}
        self._turns: dict[tuple[str, str], _Turn] = {}

    async def submit(self, place: SandboxPlace, spec: ExecSpec) -> None:
        """Put a command at the end of its shell's line; returns at once when others are before it, else when it runs.

        Raises :class:`SandboxBusyError` when the line is full, and :class:`SandboxError`.
        """
        assert spec.shell is not None  # noqa: S101 - the caller's business; there is no line without a name
        line, key = self._lines.get((place.devbox_id, spec.shell)), (place.devbox_id, spec.execution_id)
        if line is not None and len(line.turns) >= WAITING_MAX and key not in self._turns:
            raise SandboxBusyError(f"{WAITING_MAX} commands wait in shell {spec.shell!r}; let some of them end first.")
        is_new = await self._host.enter_queue(place, spec)
        turn = self._turns.get(key)
        if is_new and turn is None:
            _mark(place, spec.execution_id).touch()
            turn = self._append(place, spec.shell, spec.execution_id)
        if turn is not None and self._lines[place.devbox_id, spec.shell].turns[0] is turn:
            await turn.begun.wait()

    def recover(self, place: SandboxPlace) -> None:
        """Take up the lines that an earlier daemon left."""
        for execution_id in _marked(place):
            about = execution_files(place.disk, execution_id).read_about()
            if about is None or about.shell is None:
                _mark(place, execution_id).unlink(missing_ok=True)
            else:
                self._append(place, about.shell, execution_id)

    async def await_turn(self, devbox_id: str, execution_id: str, timeout_s: float | None) -> None:
        """Wait until the execution has begun (or is in no line), for ``timeout_s`` at most."""
        turn = self._turns.get((devbox_id, execution_id))
        if turn is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await turn.begun.wait()

    async def aclose(self) -> None:
        """Let go of the lines; the next daemon takes them up."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _append(self, place: SandboxPlace, shell: str, execution_id: str) -> _Turn:
        key = (place.devbox_id, shell)
        line = self._lines.setdefault(key, _Line(place))
        turn = self._turns[place.devbox_id, execution_id] = _Turn(execution_id)
        line.turns.append(turn)
        if line.task is None:
            line.task = asyncio.get_running_loop().create_task(self._serve(key, line))
        return turn

    async def _serve(self, key: tuple[str, str], line: _Line) -> None:
        try:
            while line.turns:
                turn = line.turns[0]
                # A sandbox that is gone has no line any more: the rest of it falls away one by one.
                with suppress(SandboxError, OSError):
                    await self._take(line.place, turn)
                turn.begun.set()
                _mark(line.place, turn.execution_id).unlink(missing_ok=True)
                line.turns.popleft()
                del self._turns[line.place.devbox_id, turn.execution_id]
        finally:
            del self._lines[key]

    async def _take(self, place: SandboxPlace, turn: _Turn) -> None:
        await self._host.start_queued(place, turn.execution_id)
        turn.begun.set()
        while (await self._host.wait(place, turn.execution_id, _WAIT_S)).status is not ExecStatus.COMPLETED:
            pass


def _mark(place: SandboxPlace, execution_id: str) -> Path:
    directory = place.disk.root / "shells"
    with suppress(FileExistsError, FileNotFoundError):
        directory.mkdir()
    return directory / execution_id


def _marked(place: SandboxPlace) -> list[str]:
    """Executions in lines, in the order in which they were asked for."""
    try:
        with os.scandir(place.disk.root / "shells") as entries:
            return [name for _, name in sorted((entry.stat().st_mtime_ns, entry.name) for entry in entries)]
    except FileNotFoundError:
        return []
