"""When a pump has moved all there was. The kernel tests run pumps in sandboxes."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from outgate.runtime.base import SandboxError
from outgate.runtime.proc import ProcessRef, find_process, is_asleep
from outgate.runtime.pumps import PumpFiles, StartingPumps, is_drained


@contextmanager
def running(*command: str, stdin: int | IO[bytes] = subprocess.PIPE) -> Iterator[tuple[ProcessRef, IO[bytes] | None]]:
    """A process that sleeps by the time this is entered, and the other end of its standard input."""
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL) as process:
        try:
            reference = find_process(process.pid)
            assert reference is not None
            while not is_asleep(reference):
                pass
            yield reference, process.stdin
        finally:
            process.kill()


def test_a_pump_that_waits_for_more_has_moved_all() -> None:
    with running("cat") as (pump, _):
        while not is_drained(pump):
            pass


def test_a_pump_with_something_in_its_pipe_has_not() -> None:
    with running("sleep", "60") as (pump, pipe):
        assert pipe is not None
        pipe.write(b"x")
        pipe.flush()
        assert not is_drained(pump)


def test_a_pump_that_has_ended_has_moved_all() -> None:
    with running("sleep", "60") as (pump, _):
        pass
    assert is_drained(pump)
    assert is_drained(ProcessRef(0, 0))


@pytest.mark.parametrize("start", ["exec 0<&-; exec sleep 60", "exec sleep 60 </dev/null"])
def test_a_process_that_is_not_yet_a_pump_says_nothing(start: str) -> None:
    with running("sh", "-c", start) as (pump, _):
        for _ in range(50):
            assert not is_drained(pump)


def test_pumps_that_cannot_be_started_take_no_descriptors(tmp_path: Path) -> None:
    """With none left, each failed start would make it worse."""
    files = PumpFiles(0, tmp_path / "out", 0, tmp_path / "err", 0, tmp_path / "status", None, 1 << 20)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    # Room for one, two, three … of those that a start takes.
    for room in range(6):
        taken = _take_all_but(room)
        try:
            with contextlib.suppress(OSError, SandboxError):
                StartingPumps(files, ()).finish()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in taken:
                os.close(descriptor)
        assert descriptors() == before, room


def descriptors() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())


def _take_all_but(room: int) -> list[int]:
    """Descriptors, so that the process may open ``room`` more of them."""
    highest = max(descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for descriptor in taken[len(taken) - room :]:
        os.close(descriptor)
    return taken[: len(taken) - room]
