"""Commands get exactly the descriptors and the environment that they are meant to have."""

import os
import signal
from pathlib import Path

import pytest

from outgate.runtime.base import SandboxError
from outgate.runtime.spawn import ENVIRONMENT, read_until_end, spawn
from support.signals import ignored, signal_set


def run(script: str, tmp_path: Path, *others: int) -> tuple[int, str]:
    """The exit status and the output of a shell script; ``others`` become descriptors 3 and on."""
    with (tmp_path / "output").open("w+b") as output, Path(os.devnull).open("rb") as nothing:
        descriptors = {0: nothing.fileno(), 1: output.fileno(), 2: output.fileno()}
        descriptors.update(dict(enumerate(others, 3)))
        status = spawn(("/bin/sh", "-c", script), descriptors).wait(10.0)
        output.seek(0)
        return status, output.read().decode()


def test_the_exit_status(tmp_path: Path) -> None:
    assert run("exit 7", tmp_path) == (7, "")
    assert run("kill -TERM $$", tmp_path) == (-15, "")


def test_no_other_descriptor_is_handed_on(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        assert run("ls /proc/self/fd | wc -l", tmp_path) == (0, "4\n")


def test_descriptors_may_be_given_in_each_others_places(tmp_path: Path) -> None:
    """Descriptors 3 and 4 of this process become 4 and 3 of the command, whichever they are here."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with (tmp_path / "a").open() as first, (tmp_path / "b").open() as second:
        pair = sorted((first.fileno(), second.fileno()), reverse=True)
        expected = "".join("a" if number == first.fileno() else "b" for number in pair)
        assert run("cat <&3; cat <&4", tmp_path, *pair) == (0, expected)


def test_the_environment_is_a_fixed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_API_KEY", "secret")
    _, output = run("env", tmp_path)
    assert {line.partition("=")[0] for line in output.splitlines()} <= {*ENVIRONMENT, "PWD", "_", "SHLVL"}


def test_it_has_a_session_of_its_own(tmp_path: Path) -> None:
    _, output = run("ps -o sid= -p $$; echo $$", tmp_path)
    session, pid = output.split()
    assert session == pid


def test_no_signal_is_ignored_or_blocked_whatever_this_process_does(tmp_path: Path) -> None:
    chosen = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN)
    with ignored(*chosen):
        signal.pthread_sigmask(signal.SIG_BLOCK, chosen)
        try:
            _, output = run("cat /proc/self/status", tmp_path)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, chosen)
    assert (signal_set(output, "SigIgn"), signal_set(output, "SigBlk")) == (set(), set())


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"sleep did not finish within 0 s"):
        spawn(("/bin/sleep", "1000"), {}).wait(0.1)


def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(("/bin/outgate-absent",), {})


def test_reading_ends_at_the_end_the_bound_or_the_time() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"ready\nand more")
        assert read_until_end(reading, 7, 1.0) == b"ready\na"
        assert read_until_end(reading, 100, 0.01) == b"nd more"
    finally:
        os.close(writing)
        assert read_until_end(reading, 100, 1.0) == b""
        os.close(reading)
