"""When a pump has moved all there was. The kernel tests run pumps in sandboxes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from outgate.runtime.proc import ProcessRef, find_process, is_asleep
from outgate.runtime.pumps import is_drained


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
