"""From a filtered place in the network to a running devbox: sandbox, launch commands, entrypoint."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from outgate import clock
from outgate.agent.outcome import launch_failure
from outgate.agent.record import Outcome
from outgate.dataplane.layout import NetworkLayout
from outgate.model.desired import DevboxDocument
from outgate.runtime.base import (
    ExecSpec,
    ExecState,
    ExecStatus,
    OutputStream,
    Runtime,
    SandboxSpec,
    SandboxUser,
)

_NAMESPACES: Final = Path("/run/netns")
_WAIT_S: Final = 60.0
_STDERR_LINES: Final = 5


class BootInterruptedError(Exception):
    """Something else is wanted of the devbox now; whoever reconciles it decides what."""


def namespace_path(layout: NetworkLayout, slot: int) -> Path:
    """Where the network namespace of ``slot`` is bound."""
    return _NAMESPACES / layout.devbox_namespace(slot)


def sandbox_spec(devbox: DevboxDocument, layout: NetworkLayout, slot: int) -> SandboxSpec:
    """The sandbox of a devbox that has ``slot``."""
    nameservers = (str(layout.gateway4), str(layout.gateway6)) if layout.has_ipv6 else (str(layout.gateway4),)
    return SandboxSpec(
        devbox_id=devbox.id,
        netns=namespace_path(layout, slot),
        nameservers=nameservers,
        user=SandboxUser(devbox.username, devbox.uid),
        image=devbox.image,
        generation=devbox.generation,
        environment=devbox.environment,
        cpu_cores=devbox.cpu_cores,
        memory_mib=devbox.memory_mib,
    )


def entrypoint_id(devbox: DevboxDocument) -> str:
    """The execution that is the devbox's entrypoint in this generation."""
    return f"entrypoint-{devbox.generation}"


async def run_launch_commands(
    runtime: Runtime, devbox: DevboxDocument, interruption: asyncio.Event, is_wanted: Callable[[], bool]
) -> Outcome | None:
    """Run the launch commands one after another, then start the entrypoint; None when all went well.

    Raises :class:`BootInterruptedError` as soon as ``is_wanted`` says so after an interruption, and
    :class:`SandboxError`.
    """
    for position, command in enumerate(devbox.launch_commands):
        execution_id = f"launch-{devbox.generation}-{position}"
        await runtime.exec_start(devbox.id, ExecSpec(execution_id, command))
        state = await _wait_for_end(runtime, devbox.id, execution_id, interruption, is_wanted)
        if state.exit_status != 0:
            stderr = await runtime.exec_output(devbox.id, execution_id, OutputStream.STDERR, _STDERR_LINES)
            return launch_failure(command, state.exit_status, stderr.text, clock.wall_ms())
    if devbox.entrypoint is not None:
        await runtime.exec_start(devbox.id, ExecSpec(entrypoint_id(devbox), devbox.entrypoint))
    return None


async def _wait_for_end(
    runtime: Runtime, devbox_id: str, execution_id: str, interruption: asyncio.Event, is_wanted: Callable[[], bool]
) -> ExecState:
    while True:
        state = await _unless(interruption, runtime.exec_wait(devbox_id, execution_id, _WAIT_S))
        interruption.clear()
        if not is_wanted():
            raise BootInterruptedError
        if state is not None and state.status is ExecStatus.COMPLETED:
            return state


async def _unless(interruption: asyncio.Event, work: Awaitable[ExecState]) -> ExecState | None:
    """What ``work`` gives, or None when the interruption comes first."""
    waiting = asyncio.ensure_future(interruption.wait())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((waiting, working), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (waiting, working):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
