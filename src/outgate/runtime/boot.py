"""Making one sandbox run, and ending it. Blocking; the one place where the parts of a sandbox come together.

Order: record, files, mounts, then the first process. It ends in reverse. A daemon that dies in between
leaves a record, by which the next one finds and ends what there is.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from outgate import clock
from outgate.runtime import cgroups
from outgate.runtime.base import SandboxError
from outgate.runtime.build_stage import mount_build
from outgate.runtime.bundle import READY_DESCRIPTOR, BundlePaths, HostFacts, render_config
from outgate.runtime.disk import SandboxRecord
from outgate.runtime.engine import COMMAND_S_MAX, Engine, last_words
from outgate.runtime.etc import write_own_files
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.freezer import thaw
from outgate.runtime.rootfs import OverlayMount, Staging, mount_etc, mount_rootfs, mount_sys
from outgate.runtime.spawn import read_until_end, spawn
from outgate.runtime.staging import run_staged
from outgate.runtime.usermap import UserMaps

_READY_S_MAX: Final = 20.0
"""A first process that has not prepared its sandbox by then never will: it takes some 2 ms on an idle host."""
_READY: Final = b"ready\n"
_PIPE_BYTES: Final = 64 * 1024
"""What a pipe holds: more than an OCI runtime says."""
_DEATH_S_MAX: Final = 20.0
"""The kernel needs milliseconds to end killed processes, unless they hang in uninterruptible I/O."""
_DEATH_STEP_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Booter:
    """Boots and halts sandboxes on this host."""

    engine: Engine
    facts: HostFacts
    layout: cgroups.CgroupLayout
    staging: Staging
    maps: UserMaps

    def boot(self, place: SandboxPlace, record: SandboxRecord, overlays: tuple[OverlayMount, ...]) -> None:
        """Start the sandbox's first process; returns when it has prepared everything.

        Raises :class:`SandboxError`; no process or control group is left then.
        """
        disk = place.disk
        paths = BundlePaths(
            rootfs=self.staging.rootfs,
            sys=self.staging.sys,
            resolv_conf=self.staging.etc / "resolv.conf",
            hosts=self.staging.etc / "hosts",
            hostname=self.staging.etc / "hostname",
            cgroup=place.group,
        )
        disk.config.write_bytes(msgspec.json.encode(render_config(record.spec, record.ids, paths, self.facts)))
        userns = self.maps.descriptor(record.ids)

        def boot_staged() -> None:
            mount_sys(self.staging)
            mount_etc(self.staging)
            write_own_files(self.staging.etc, record.spec, record.ids.first_id)
            mount_rootfs(self.staging, overlays, disk.overlay, userns_fd=userns, host_root=record.ids.first_id)
            if record.spec.is_builder:
                mount_build(self.staging, record.bases, disk.overlay, userns_fd=userns, host_root=record.ids.first_id)
            self._run(place)

        try:
            run_staged(record.spec.netns, boot_staged)
        except OSError as error:
            self.halt(place)
            raise SandboxError(f"The sandbox's file system could not be made: {error}.") from error
        except BaseException:
            self.halt(place)
            raise

    def _run(self, place: SandboxPlace) -> None:
        disk = place.disk
        with ExitStack() as files:
            nothing = files.enter_context(Path(os.devnull).open("r+b"))
            # Pipes, no files: whatever is /bin/sh on this disk may keep its descriptors for as long as it lives.
            reading, writing = os.pipe2(os.O_CLOEXEC)
            files.callback(os.close, reading)
            words, complaining = os.pipe2(os.O_CLOEXEC)
            files.callback(os.close, words)
            os.set_blocking(words, False)
            try:
                command = spawn(
                    self.engine.run_arguments(place.devbox_id, disk.root, disk.pid_file),
                    {0: nothing.fileno(), 1: complaining, 2: complaining, READY_DESCRIPTOR: writing},
                )
                status = command.wait(COMMAND_S_MAX)
            finally:
                os.close(writing)
                os.close(complaining)
            if status != 0 or read_until_end(reading, len(_READY) + 1, _READY_S_MAX) != _READY:
                raise SandboxError(f"The sandbox did not start: {_read_what_is_there(words)}")

    def halt(self, place: SandboxPlace) -> None:
        """End every process of the sandbox and remove its control groups; its disk stays. May be called again.

        Raises :class:`SandboxError` when something would not go.
        """
        directories = self.layout.directories(place.group)
        # Frozen processes do not die (version 1): a daemon may have been killed while it sealed the disk.
        thaw(self.layout, place.group)
        deadline_s = clock.monotonic_s() + _DEATH_S_MAX
        while True:
            self._kill_all(place, deadline_s)
            self.engine.forget(place.devbox_id)
            place.disk.pid_file.unlink(missing_ok=True)
            stuck = cgroups.remove_groups(directories)
            if not stuck:
                return
            # A command that was being started meanwhile got in after the kill.
            if clock.monotonic_s() > deadline_s:
                names = ", ".join(map(str, stuck))
                raise SandboxError(f"Control groups of {place.devbox_id} are still in use: {names}.")
            time.sleep(_DEATH_STEP_S)

    def _kill_all(self, place: SandboxPlace, deadline_s: float) -> None:
        while alive := cgroups.processes(self.layout.directories(place.group)):
            cgroups.kill_processes(place.group, alive)
            if clock.monotonic_s() > deadline_s:
                raise SandboxError(f"Processes of {place.devbox_id} cannot be killed: {sorted(alive)[:10]}.")
            time.sleep(_DEATH_STEP_S)


def _read_what_is_there(pipe: int) -> str:
    try:
        return last_words(os.read(pipe, _PIPE_BYTES))
    except BlockingIOError:
        return last_words(b"")
