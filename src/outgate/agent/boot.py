"""From a filtered place in the network to a running devbox: sandbox, mounts, launch commands, entrypoint."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from outgate import clock
from outgate.agent.commands import BootInterruptedError, CommandEnd, Commands
from outgate.agent.mounts import Mounter, ObjectSource
from outgate.agent.outcome import FailureReason, command_failure, failure
from outgate.agent.record import DevboxRecord, Outcome
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import OutgateError
from outgate.model.desired import DevboxDocument
from outgate.runtime.base import ExecSpec, ObservedSandbox, SandboxError, SandboxSpec, SandboxUser

_NAMESPACES: Final = Path("/run/netns")
_API_PAUSE_S: Final = 2.0
"""A supervisor has its api up again within a second."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One start of a devbox whose sandbox runs. ``observe`` looks at the sandbox as it is at that moment."""

    devbox: DevboxDocument
    record: DevboxRecord
    commands: Commands
    objects: ObjectSource
    observe: Callable[[], Awaitable[ObservedSandbox | None]]

    @property
    def name(self) -> str:
        """Tells the executions of this start from those of others, on the same disk too."""
        return f"{self.record.generation}-{self.record.attempts}"


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
        user=user_of(devbox),
        image=devbox.image,
        generation=devbox.generation,
        environment=devbox.environment,
        cpu_cores=devbox.cpu_cores,
        memory_mib=devbox.memory_mib,
    )


def user_of(devbox: DevboxDocument) -> SandboxUser:
    """Who runs commands in the devbox."""
    return SandboxUser(devbox.username, devbox.uid)


def entrypoint_id(record: DevboxRecord) -> str:
    """The execution that is the devbox's entrypoint in this start."""
    return f"entrypoint-{record.generation}-{record.attempts}"


async def run_boot(boot: Boot) -> Outcome | None:
    """Make the mounts (in the first boot), run the launch commands, start the entrypoint; None when all went well.

    Raises :class:`BootInterruptedError` when it is not wanted any more, and :class:`SandboxError`.
    """
    outcome = await _make_mounts(boot)
    if outcome is not None:
        return outcome
    for position, command in enumerate(boot.devbox.launch_commands):
        end = await boot.commands.run(ExecSpec(f"launch-{boot.name}-{position}", command))
        if end.exit_status != 0:
            return await _blame(boot, f"Launch command {command!r}", end)
    if boot.devbox.entrypoint is not None:
        spec = ExecSpec(entrypoint_id(boot.record), boot.devbox.entrypoint)
        await boot.commands.runtime.exec_start(boot.devbox.id, spec)
    return None


async def _make_mounts(boot: Boot) -> Outcome | None:
    if boot.record.keeps_disk:
        return None  # they are on the disk, with whatever became of them
    mounter = Mounter(boot.commands, boot.objects, user_of(boot.devbox), f"mount-{boot.name}")
    for position, mount in enumerate(boot.devbox.mounts):
        try:
            failed = await mounter.make(position, mount)
        except PeerRefusedError as error:
            sentence = f"An object could not be read. {error.message}"
            return failure(sentence, clock.wall_ms(), FailureReason.EXECUTION_FAILED)
        except PeerUnreachableError as error:
            # The api is being restarted, say. The start is broken off, and tried again a few times.
            structlog.get_logger("devboxes").warning("object_late", devbox_id=boot.devbox.id, why=error.message)
            await asyncio.sleep(_API_PAUSE_S)
            raise BootInterruptedError from error
        if failed is not None:
            return await _blame(boot, failed.what, failed.end)
    return None


async def _blame(boot: Boot, what: str, end: CommandEnd) -> Outcome:
    return command_failure(what, end.exit_status, end.stderr, await boot.observe(), clock.wall_ms())


async def run_suspend_commands(devbox: DevboxDocument, record: DevboxRecord, commands: Commands) -> None:
    """Run the suspend commands one after another within their time. What fails or is late does not hold it up."""
    log = structlog.get_logger("devboxes")
    try:
        async with asyncio.timeout(devbox.suspend_deadline_ms / 1000):
            for position, command in enumerate(devbox.suspend_commands):
                name = f"suspend-{record.generation}-{record.attempts}-{position}"
                end = await commands.run(ExecSpec(name, command))
                if end.exit_status != 0:
                    log.warning("suspend_command_failed", devbox_id=devbox.id, command=command, status=end.exit_status)
    except TimeoutError:
        log.warning("suspend_commands_late", devbox_id=devbox.id, deadline_ms=devbox.suspend_deadline_ms)
    except (BootInterruptedError, SandboxError) as error:
        why = error.message if isinstance(error, OutgateError) else "something else is wanted of the devbox now"
        log.warning("suspend_commands_broken_off", devbox_id=devbox.id, why=why)
