"""The build of a blueprint: a sandbox whose disk becomes an image, instead of launch commands.

It is filtered like any devbox before its first process runs, and stays so to its end. With a Dockerfile there are two
sandboxes, one after the other in the same place: the builder, and one of the image that the builder made, in which the
rest is done. Even when there is no rest, that shows that the image can be started.
"""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from outgate import clock
from outgate.agent.boot import user_of
from outgate.agent.build_dockerfile import (
    DOCKERFILE,
    PREPARE_SCRIPT,
    RUN_SCRIPT,
    SCRIPT,
    SECRETS,
    UNPACK_CONTEXT_SCRIPT,
    find_reason,
    render_script,
)
from outgate.agent.build_log import LINE_LENGTH_MAX, BuildLog
from outgate.agent.commands import CommandEnd, Commands
from outgate.agent.mounts import Mounter, ObjectSource
from outgate.agent.observation import Sandboxes
from outgate.agent.outcome import FailureReason, failure
from outgate.agent.record import DevboxRecord, Outcome
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.desired import BUILD_COMPLETE, BuildDocument, DevboxDocument, ObservedPhase
from outgate.runtime.base import ROOT, ExecSpec, ObservedSandbox, OutputStream, Runtime, SandboxError, SandboxSpec

_BASE_SUFFIX: Final = "-base"
_CHUNK_BYTES: Final = 65_536
_BUILDER_IMAGE: Final = "stock"


class BuildFailedError(OutgateError):
    """The build cannot go on; the message is the reason."""

    code = "build_failed"


@dataclass(frozen=True, slots=True)
class Build:
    """One attempt at a build. ``spec`` is its sandbox as a devbox's would be; the first one runs already.

    ``observe`` looks at the sandbox as it is at that moment; ``is_filtered`` says whether its place in the network
    is confirmed.
    """

    devbox: DevboxDocument
    document: BuildDocument
    record: DevboxRecord
    spec: SandboxSpec
    commands: Commands
    objects: ObjectSource
    sandboxes: Sandboxes
    log: BuildLog
    observe: Callable[[], Awaitable[ObservedSandbox | None]]
    is_filtered: Callable[[], bool]

    @property
    def runtime(self) -> Runtime:
        """What it is built with."""
        return self.commands.runtime

    @property
    def name(self) -> str:
        """Tells the executions of this attempt from those of others."""
        return f"build-{self.record.generation}-{self.record.attempts}"


def first_spec(devbox: DevboxDocument, spec: SandboxSpec) -> SandboxSpec:
    """The sandbox that the build begins with."""
    if devbox.build is None or devbox.build.dockerfile is None:
        return spec
    # Secrets reach a Dockerfile's commands by files, where one asks for them; never by the environment.
    return replace(spec, image=_BUILDER_IMAGE, environment={}, is_builder=True)


async def remove_images_of(runtime: Runtime, blueprint_id: str, *, is_complete: bool) -> None:
    """Remove what a build left in the image store; with ``is_complete`` only what is not its result."""
    await runtime.remove_image(blueprint_id + _BASE_SUFFIX)
    if not is_complete:
        await runtime.remove_image(blueprint_id)


async def run_build(build: Build) -> Outcome:
    """Carry out the build, its first sandbox running; how it ended.

    Raises :class:`BootInterruptedError` when it is not wanted any more.
    """
    build.log.start()
    try:
        outcome = await _run_in_time(build)
        if outcome.detail:
            build.log.say(outcome.detail, level="error")
        return outcome
    finally:
        await build.log.aclose()


async def _run_in_time(build: Build) -> Outcome:
    limit_s = build.document.time_limit_s
    try:
        async with asyncio.timeout(limit_s):
            await _carry_out(build)
    except TimeoutError:
        return failure(f"The build took longer than {limit_s} seconds, the most it may take.", clock.wall_ms())
    except (PeerUnreachableError, PeerRefusedError) as error:
        return failure(f"A stored object could not be read. {error.message}", clock.wall_ms())
    except (BuildFailedError, SandboxError, InvalidValueError) as error:
        return failure(error.message, clock.wall_ms(), await _find_reason(build))
    return Outcome(ObservedPhase.SHUTDOWN, clock.wall_ms(), shutdown_reason=BUILD_COMPLETE)


async def _find_reason(build: Build) -> FailureReason | None:
    """What the sandbox ran out of, if anything. Who is killed may be anybody: buildah's own status says nothing."""
    sandbox = await build.observe()
    if sandbox is not None and sandbox.oom_kills > 0:
        return FailureReason.OUT_OF_MEMORY
    return FailureReason.OUT_OF_DISK if sandbox is not None and sandbox.is_disk_full else None


async def _carry_out(build: Build) -> None:
    # An earlier attempt, broken off at any point, may have left some.
    await remove_images_of(build.runtime, build.devbox.id, is_complete=False)
    has_rest = bool(build.devbox.mounts or build.document.setup_commands)
    if build.document.dockerfile is not None:
        await _run_dockerfile(build, build.document.dockerfile)
        made = build.devbox.id + (_BASE_SUFFIX if has_rest else "")
        await build.runtime.seal_build(build.devbox.id, made)
        await _start_from(build, made)
        if not has_rest:
            return
    await _make_mounts(build)
    for position, command in enumerate(build.document.setup_commands):
        build.log.say(f"$ {command}")
        end = await _follow(build, ExecSpec(f"{build.name}-setup-{position}", f"exec 2>&1\n{command}", user=ROOT))
        if end.exit_status != 0:
            raise BuildFailedError(f"Setup command {command[:200]!r} ended with status {end.exit_status}.")
    await build.runtime.halt(build.devbox.id)
    await build.runtime.seal(build.devbox.id, build.devbox.id)
    await remove_images_of(build.runtime, build.devbox.id, is_complete=True)


async def _run_dockerfile(build: Build, dockerfile: str) -> None:
    secrets = build.devbox.environment
    await _run_quietly(build, "prepare", PREPARE_SCRIPT)
    await _write(build, "dockerfile", DOCKERFILE, dockerfile)
    await _write(build, "script", SCRIPT, render_script(build.document.build_args, secrets))
    for position, (name, value) in enumerate(secrets.items()):
        await _write(build, f"secret-{position}", SECRETS / name, value)
    if build.document.context_object_id is not None:
        await _unpack_context(build, build.document.context_object_id)
    reasons = [""]

    def look_for_reason(line: str) -> None:
        reason = find_reason(line)
        if reason is not None:
            reasons.append(reason)

    end = await _follow(build, ExecSpec(f"{build.name}-buildah", RUN_SCRIPT, user=ROOT), look_for_reason)
    if end.exit_status != 0:
        raise BuildFailedError(reasons[-1] or f"The Dockerfile's build ended with status {end.exit_status}.")


async def _unpack_context(build: Build, object_id: str) -> None:
    spec = ExecSpec(f"{build.name}-context", UNPACK_CONTEXT_SCRIPT, user=ROOT)
    async with build.objects.open_object(object_id) as data:
        end = await build.commands.feed(spec, data)
    if end.exit_status != 0:
        raise BuildFailedError(f"The build context {object_id} is no gzip-compressed tar archive.")


async def _start_from(build: Build, image: str) -> None:
    """Begin anew in the image that was just made."""
    devbox_id = build.devbox.id
    with build.sandboxes.working_on(devbox_id):
        await build.runtime.stop(devbox_id)
        build.sandboxes.stopped(devbox_id)
        if not build.is_filtered():
            # Its link is being made anew: nothing of it may run before that is done.
            raise BuildFailedError("The build's network was taken away while it was built; build again.")
        try:
            await build.runtime.start(replace(build.spec, image=image))
        except SandboxError as error:
            await remove_images_of(build.runtime, devbox_id, is_complete=False)
            text = "The image was built, but cannot be started; it needs /bin/sh, mkdir, chown and chmod."
            raise BuildFailedError(f"{text} {error.message}") from error
        build.sandboxes.started(devbox_id, build.devbox.generation)


async def _make_mounts(build: Build) -> None:
    mounter = Mounter(build.commands, build.objects, user_of(build.devbox), f"{build.name}-mount")
    for position, mount in enumerate(build.devbox.mounts):
        failed = await mounter.make(position, mount)
        if failed is not None:
            build.log.say(failed.end.stderr, level="error")
            raise BuildFailedError(f"{failed.what} ended with status {failed.end.exit_status}.")


async def _run_quietly(build: Build, what: str, script: str) -> None:
    end = await build.commands.run(ExecSpec(f"{build.name}-{what}", script, user=ROOT))
    if end.exit_status != 0:
        raise BuildFailedError(f"The build could not be prepared ({what}): {end.stderr}")


async def _write(build: Build, what: str, file: PurePosixPath, content: str) -> None:
    spec = ExecSpec(f"{build.name}-{what}", f"umask 077; exec cat >{file}", user=ROOT)
    end = await build.commands.feed(spec, _chunks(content.encode()))
    if end.exit_status != 0:
        raise BuildFailedError(f"The build could not be prepared ({what}): {end.stderr}")


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


async def _follow(build: Build, spec: ExecSpec, look: Callable[[str], None] = lambda _: None) -> CommandEnd:
    """Run a command whose standard output goes to the log line by line as it comes; ``look`` sees each line."""
    await build.runtime.exec_start(build.devbox.id, spec)
    reading = asyncio.ensure_future(_read_lines(build, spec.execution_id, look))
    try:
        end = await build.commands.run(spec)
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return end


async def _read_lines(build: Build, execution_id: str, look: Callable[[str], None]) -> None:
    stream = await build.runtime.exec_stream(build.devbox.id, execution_id, OutputStream.STDOUT, 0)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    async with contextlib.aclosing(stream):
        async for chunk in stream:
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            for line in lines:
                build.log.say(line)
                look(line)
            rest = rest[-LINE_LENGTH_MAX:]
    rest += decoder.decode(b"", final=True)
    if rest:
        build.log.say(rest)
        look(rest)
