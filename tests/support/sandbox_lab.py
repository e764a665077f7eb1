"""A sandbox runtime of a test's own, with a network namespace, on uvloop as in the agent."""

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import uvloop

from outgate.runtime import cgroups
from outgate.runtime.base import ROOT, ExecSpec, ExecState, OutputStream, SandboxSpec, SandboxUser, StdinMode
from outgate.runtime.engine import EngineKind, find_engine
from outgate.runtime.images import ImageStore
from outgate.runtime.oci import OciRuntime, OciSettings

Result = TypeVar("Result")

USER = SandboxUser("user", 1000)
WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What an execution came to."""

    exit_status: int | None
    stdout: str
    stderr: str


class Lab:
    """What a test wants to say to a runtime, in one line each."""

    def __init__(self, settings: OciSettings, netns: Path, runner: asyncio.Runner) -> None:
        self.settings = settings
        self.netns = netns
        self._runner = runner
        self._runtime: OciRuntime | None = None

    @property
    def runtime(self) -> OciRuntime:
        assert self._runtime is not None
        return self._runtime

    @property
    def images(self) -> ImageStore:
        return ImageStore(self.settings.state_dir)

    @property
    def group(self) -> PurePosixPath:
        return PurePosixPath("/") / f"outgate-{self.settings.instance}"

    def open(self) -> None:
        """Make the runtime, anew if there was one: as when the daemon was started again."""
        self._runtime = OciRuntime(self.settings)
        self.run(self._runtime.prepare())

    def close(self) -> None:
        """Let go of the runtime as a daemon does that ends; its sandboxes go on."""
        self.run(self.runtime.aclose())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def spec(self, devbox_id: str = "dbx_1", **changes: Any) -> SandboxSpec:
        plain = SandboxSpec(devbox_id, self.netns, ("10.9.8.7",), USER, memory_mib=512, pids_max=200)
        return replace(plain, **changes)

    def start(self, devbox_id: str = "dbx_1", **changes: Any) -> None:
        self.run(self.runtime.start(self.spec(devbox_id, **changes)))

    def begin(self, command: str, *, box: str = "dbx_1", root: bool = False, stdin: bool = False) -> str:
        """Start an execution; returns its id."""
        execution_id = f"exec-{secrets.token_hex(4)}"
        mode = StdinMode.PIPE if stdin else StdinMode.NULL
        spec = ExecSpec(execution_id, command, mode, ROOT if root else None)
        self.run(self.runtime.exec_start(box, spec))
        return execution_id

    def wait(self, execution_id: str, *, box: str = "dbx_1", timeout_s: float = WAIT_S) -> ExecState:
        return self.run(self.runtime.exec_wait(box, execution_id, timeout_s))

    def output(self, execution_id: str, *, box: str = "dbx_1", stream: OutputStream = OutputStream.STDOUT) -> str:
        return self.run(self.runtime.exec_output(box, execution_id, stream, 1_000_000)).text

    def execute(self, command: str, *, box: str = "dbx_1", root: bool = False) -> Finished:
        """Run a command to its end."""
        execution_id = self.begin(command, box=box, root=root)
        state = self.wait(execution_id, box=box)
        stdout, stderr = (self.output(execution_id, box=box, stream=stream) for stream in OutputStream)
        return Finished(state.exit_status, stdout, stderr)

    def count_processes(self, box: str = "dbx_1") -> int:
        """What the kernel counts against the sandbox's limit: ended ones too, until somebody takes note."""
        (counted,) = {
            (directory / box / "pids.current").read_text()
            for directory in cgroups.observe_layout().directories(self.group)
            if (directory / box / "pids.current").exists()
        }
        return int(counted)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a runtime could have left on the host."""

    mounts: tuple[str, ...]
    processes: frozenset[int]
    groups: tuple[Path, ...]
    files: tuple[str, ...]


def find_traces(lab: Lab) -> Traces:
    """All that is there of the lab's sandboxes; images and the common directories do not count."""
    marks = (str(lab.settings.state_dir), str(lab.settings.run_dir))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    layout = cgroups.observe_layout()
    groups = [
        Path(below)
        for directory in layout.directories(lab.group)
        for below, _, _ in os.walk(directory)
        if Path(below) != directory
    ]
    kept = ("images.json", "images.lock", "images-writer.lock", "layers", "incoming", "sandboxes", "trash")
    files = [
        str(path)
        for path in (
            *(p for p in lab.settings.state_dir.iterdir() if p.name not in kept),
            *(lab.settings.state_dir / "sandboxes").iterdir(),
            *(lab.settings.state_dir / "trash").iterdir(),
            *(lab.settings.state_dir / "incoming").iterdir(),
            *lab.settings.engine.root.iterdir(),
            *(lab.settings.run_dir / "sandbox").glob("*/*"),
        )
    ]
    return Traces(
        mounts=tuple(line for line in mounts if any(mark in line for mark in marks)),
        processes=cgroups.processes(layout.directories(lab.group)),
        groups=tuple(groups),
        files=tuple(files),
    )


NO_TRACES = Traces((), frozenset(), (), ())


@contextmanager
def open_lab(state_dir: Path) -> Iterator[Lab]:
    """A lab whose sandboxes, namespaces and directories are gone afterwards."""
    token = secrets.token_hex(3)
    netns = f"ogrt-{token}"
    run_dir = Path("/run") / f"outgate-test-{token}"
    subprocess.run(("ip", "netns", "add", netns), check=True)
    try:
        # A namespace's own loopback is down at first; programs in sandboxes expect it.
        subprocess.run(("ip", "-netns", netns, "link", "set", "lo", "up"), check=True)
        settings = OciSettings(find_engine(EngineKind.RUNC, run_dir / "oci"), state_dir, run_dir, token)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lab = Lab(settings, Path("/run/netns") / netns, runner)
            lab.open()
            try:
                yield lab
            finally:
                runner.run(lab.runtime.teardown())
                lab.close()
    finally:
        subprocess.run(("ip", "netns", "delete", netns), check=True)
        shutil.rmtree(run_dir, ignore_errors=True)
