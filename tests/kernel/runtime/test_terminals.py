"""Programs with somebody at their streams, in real sandboxes."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outgate.errors import InvalidValueError
from outgate.model.terminals import TerminalSize
from outgate.runtime.base import SandboxError, SandboxNotFoundError, TerminalSpec
from outgate.runtime.terminals import Terminal
from support.sandbox_lab import NO_TRACES, Lab, find_traces

pytestmark = pytest.mark.kernel

SIZE = TerminalSize(91, 33)
WAIT_S = 15.0


@contextmanager
def terminal(lab: Lab, command: str | None, *, pty: bool = False, **environment: str) -> Iterator[Terminal]:
    spec = TerminalSpec(command, environment, SIZE if pty else None)
    opened = lab.run(lab.runtime.open_terminal("dbx_1", spec))
    try:
        yield opened
    finally:
        with suppress(OSError):
            opened.close()


def read_to_end(descriptor: int, wait_s: float = WAIT_S) -> bytes:
    """Everything until the end; a hung-up terminal's is EIO."""
    data = b""
    while select.select([descriptor], [], [], wait_s)[0]:
        try:
            more = os.read(descriptor, 65536)
        except OSError:
            return data
        if not more:
            return data
        data += more
    raise AssertionError(f"no end after {data!r}")


def read_until(descriptor: int, wanted: bytes, wait_s: float = WAIT_S) -> bytes:
    data = b""
    deadline = time.monotonic() + wait_s
    while wanted not in data:
        assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], data
        data += os.read(descriptor, 65536)
    return data


def status_of(opened: Terminal) -> int:
    assert select.select([opened.status], [], [], WAIT_S)[0]
    return opened.read_status()


def processes_named(lab: Lab, mark: str) -> str:
    return lab.execute(
        f"for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -F {mark} | grep -v grep; done"
    ).stdout


def test_pipes_keep_the_streams_apart_and_carry_any_byte(lab: Lab) -> None:
    lab.start()
    payload = bytes(range(256)) * 400
    with terminal(lab, "cat; echo to-stderr >&2; exit 7") as opened:
        stdin, stdout, stderr = opened.streams
        writer = subprocess.Popen(("cat",), stdin=subprocess.PIPE, stdout=stdin)
        os.close(stdin)
        assert writer.stdin is not None
        writer.stdin.write(b"")
        with writer.stdin as feed:
            feed.write(payload[:30_000])
        assert read_to_end(stdout) == payload[:30_000]
        assert read_to_end(stderr) == b"to-stderr\n"
        assert status_of(opened) == 7
        assert writer.wait(WAIT_S) == 0


def test_it_runs_as_the_user_in_its_home_with_the_sandboxs_environment(lab: Lab) -> None:
    lab.start(environment={"GIVEN": "by the box"})
    with terminal(lab, 'id -un; pwd; echo "$GIVEN $BROUGHT $HOME"', GIVEN="by the client", BROUGHT="along") as opened:
        assert read_to_end(opened.streams[1]).decode().splitlines() == [
            "user",
            "/home/user",
            "by the box along /home/user",
        ]
        assert status_of(opened) == 0


def test_a_pseudo_terminal_is_a_real_one_inside(lab: Lab) -> None:
    lab.start()
    with terminal(lab, 'tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo "$TERM"', pty=True, TERM="xterm") as opened:
        lines = read_to_end(opened.streams[0]).decode().replace("\r", "").splitlines()
        assert lines == ["/dev/pts/0", "33 91", "xterm"]
        assert status_of(opened) == 0


def test_a_login_shell_has_job_control_and_hears_of_sizes_and_signals(lab: Lab) -> None:
    lab.start()
    with terminal(lab, None, pty=True, TERM="dumb", PS1="$ ") as opened:
        master = opened.streams[0]
        read_until(master, b"$ ")
        os.write(master, b"sleep 1000\n")
        deadline = time.monotonic() + WAIT_S
        while "sleep 1000" not in processes_named(lab, "1000") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert lab.run(lab.runtime.signal_terminal(opened, signal.SIGINT))
        read_until(master, b"$ ")
        os.write(master, b"echo status=$?; trap 'stty size' WINCH; set | grep ^SHELL=\n")
        said = read_until(master, b"SHELL=/bin/bash")
        assert b"status=130" in said
        os.write(master, b"exit 5\n")
        read_to_end(master)
        assert status_of(opened) == 5


def test_signals_reach_the_command_and_its_status_tells(lab: Lab) -> None:
    lab.start()
    with terminal(lab, "echo up; exec sleep 1000") as opened:
        read_until(opened.streams[1], b"up\n")
        assert lab.run(lab.runtime.signal_terminal(opened, signal.SIGUSR1))
        assert status_of(opened) == 128 + signal.SIGUSR1
        assert not lab.run(lab.runtime.signal_terminal(opened, signal.SIGTERM))


@pytest.mark.parametrize("pty", [False, True])
def test_a_hang_up_ends_the_command_even_one_that_ignores_it(lab: Lab, pty: bool) -> None:
    lab.start()
    with terminal(lab, "trap '' HUP; echo up; python3 -c 'import time; time.sleep(987)'", pty=pty) as opened:
        read_until(opened.streams[0 if pty else 1], b"up")
        deadline = time.monotonic() + WAIT_S
        while "sleep(987)" not in processes_named(lab, "987") and time.monotonic() < deadline:
            time.sleep(0.05)
        lab.run(lab.runtime.hang_up_terminal(opened))
    deadline = time.monotonic() + WAIT_S
    while processes_named(lab, "sleep(987)") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_named(lab, "sleep(987)") == ""


def test_the_end_of_the_box_ends_its_terminals(lab: Lab) -> None:
    lab.start()
    with terminal(lab, None, pty=True) as opened:
        lab.run(lab.runtime.stop("dbx_1"))
        assert status_of(opened) == 137
        read_to_end(opened.streams[0])
    assert find_traces(lab) == NO_TRACES


def test_what_lies_at_ptmx_is_not_believed(lab: Lab) -> None:
    lab.start()
    swapped = lab.execute(
        "rm /dev/ptmx && mknod -m 666 /dev/ptmx p || ln -s /dev/null /dev/ptmx; ls -l /dev", root=True
    )
    assert swapped.exit_status == 0, swapped
    with pytest.raises(SandboxError):
        lab.run(lab.runtime.open_terminal("dbx_1", TerminalSpec("true", {}, SIZE)))


def test_refusals(lab: Lab) -> None:
    with pytest.raises(SandboxNotFoundError):
        lab.run(lab.runtime.open_terminal("dbx_none", TerminalSpec("true")))
    lab.start()
    for bad in (
        TerminalSpec("a\0b"),
        TerminalSpec("x" * (128 * 1024)),
        TerminalSpec(None, {"A=B": "1"}),
        TerminalSpec(None, {}, TerminalSize(0, 10)),
        TerminalSpec(None, {}, TerminalSize(10, 1001)),
    ):
        with pytest.raises(InvalidValueError):
            lab.run(lab.runtime.open_terminal("dbx_1", bad))


def test_no_descriptor_or_file_stays(lab: Lab) -> None:
    lab.start()
    with terminal(lab, "true", pty=True) as opened:
        status_of(opened)
    before = _open_descriptors()
    for pty in (False, True):
        with terminal(lab, "true", pty=pty) as opened:
            status_of(opened)
    assert _open_descriptors() == before
    assert list((lab.settings.run_dir / "terminals").iterdir()) == []


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
