"""Shells that last: what passes from one command to the next, in which order they run, and who may end them."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest

from outgate.errors import InvalidValueError
from outgate.runtime.base import (
    ExecSpec,
    ExecStatus,
    OutputStream,
    SandboxBusyError,
    SandboxNotFoundError,
    StdinMode,
    StdinUnreadError,
)
from outgate.runtime.shells import WAITING_MAX
from support.sandbox_lab import WAIT_S, Lab

pytestmark = pytest.mark.kernel


def begin(lab: Lab, command: str, shell: str = "one", *, stdin: bool = False) -> str:
    execution_id = f"exec-{secrets.token_hex(4)}"
    mode = StdinMode.PIPE if stdin else StdinMode.NULL
    lab.run(lab.runtime.exec_start("dbx_1", ExecSpec(execution_id, command, mode, shell=shell)))
    return execution_id


def run(lab: Lab, command: str, shell: str = "one") -> str:
    execution = begin(lab, command, shell)
    state = lab.wait(execution)
    assert state.status is ExecStatus.COMPLETED
    assert state.shell == shell
    return f"{state.exit_status} {lab.output(execution)}{lab.output(execution, stream=OutputStream.STDERR)}"


def test_directory_variables_functions_and_umask_stay(shared: Lab) -> None:
    assert (
        run(shared, "mkdir -p /tmp/deep && cd /tmp/deep && export A='it'\\''s \"so\"' B=$'two\\nlines'", "s1") == "0 "
    )
    assert run(shared, "unexported=here; list=(1 '2 3'); greet() { echo hello $1; }; umask 027", "s1") == "0 "
    assert run(shared, 'pwd; echo "$A|$B|$unexported|${list[1]}"; greet you; umask; echo $#', "s1") == (
        '0 /tmp/deep\nit\'s "so"|two\nlines|here|2 3\nhello you\n0027\n0\n'
    )


def test_shells_are_apart_and_other_commands_start_fresh(shared: Lab) -> None:
    run(shared, "cd /tmp; export WHERE=two", "s2")
    assert run(shared, "pwd; echo $WHERE", "s3 with 'quotes' and ../..") == "0 /home/user\n\n"
    assert shared.execute("pwd; echo $WHERE").stdout == "/home/user\n\n"
    assert run(shared, "pwd; echo $WHERE", "s2") == "0 /tmp\ntwo\n"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cd /usr; exit 3", "3 "),
        ("cd /usr; false", "1 "),
        ("cd /usr; echo $1$2; no-such-command", "127 \n"),
        ("cd /usr # a comment at the end", "0 "),
        ("cd /usr; IFS=x; set -u; set -e; false; echo no", "1 "),
    ],
)
def test_however_a_command_ends_its_shell_goes_on_from_there(shared: Lab, command: str, expected: str) -> None:
    shell = f"ends-{expected}-{command}"
    assert run(shared, command, shell).startswith(expected)
    assert run(shared, "pwd; echo ok", shell) == "0 /usr\nok\n"


def test_a_killed_or_broken_command_leaves_the_shell_where_it_was(shared: Lab) -> None:
    run(shared, "cd /tmp", "s4")
    execution = begin(shared, "cd /usr; sleep 60", "s4")
    shared.run(shared.runtime.exec_kill("dbx_1", execution))
    assert shared.wait(execution).exit_status == 137
    assert run(shared, "syntax (", "s4").startswith("2 ")
    assert run(shared, "pwd", "s4") == "0 /tmp\n"
    run(shared, "cd /usr; exec true", "s4")
    assert run(shared, "pwd", "s4") == "0 /tmp\n"


def test_commands_take_turns_in_the_order_in_which_they_came(shared: Lab) -> None:
    shared.execute("rm -f /tmp/turns /tmp/release")
    first = begin(shared, "until test -e /tmp/release; do sleep 0.02; done; echo 1 >>/tmp/turns", "s5")
    rest = [begin(shared, f"sleep 0.0{9 - n}; echo {n} >>/tmp/turns", "s5") for n in range(2, 6)]
    other = begin(shared, "echo not kept waiting", "s6")
    assert shared.wait(other).exit_status == 0
    assert shared.run(shared.runtime.exec_state("dbx_1", first)).status is ExecStatus.RUNNING
    assert all(shared.run(shared.runtime.exec_state("dbx_1", e)).status is ExecStatus.QUEUED for e in rest)
    assert shared.wait(rest[0], timeout_s=0.1).status is ExecStatus.QUEUED
    with pytest.raises(StdinUnreadError):
        shared.run(shared.runtime.exec_interrupt("dbx_1", rest[0]))

    async def read_last() -> bytes:
        pieces = await shared.runtime.exec_stream("dbx_1", rest[-1], OutputStream.STDOUT, 0)
        reading = asyncio.ensure_future(_join(pieces))
        await shared.runtime.exec_kill("dbx_1", rest[1])
        await asyncio.sleep(0.05)
        assert not reading.done()
        await shared.runtime.exec_start("dbx_1", ExecSpec(f"go-{secrets.token_hex(2)}", "touch /tmp/release"))
        async with asyncio.timeout(WAIT_S):
            return await reading

    assert shared.run(read_last()) == b""
    assert [shared.wait(e).exit_status for e in (first, *rest)] == [0, 0, 137, 0, 0]
    assert shared.execute("cat /tmp/turns").stdout == "1\n2\n4\n5\n"


async def _join(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def test_the_same_id_runs_once_in_a_shell_too(shared: Lab) -> None:
    spec = ExecSpec("again-in-shell", "echo ran >>/tmp/again-in-shell", shell="s7")  # noqa: S604 - a devbox's shell

    async def at_once() -> None:
        await asyncio.gather(*(shared.runtime.exec_start("dbx_1", spec) for _ in range(5)))

    shared.run(at_once())
    shared.wait("again-in-shell")
    shared.run(at_once())
    assert shared.execute("cat /tmp/again-in-shell").stdout == "ran\n"


def test_lines_are_taken_up_by_the_next_daemon(lab: Lab) -> None:
    lab.start()
    first = begin(lab, "cd /tmp; until test -e /tmp/go; do sleep 0.05; done; echo 1 >>/tmp/turns")
    rest = [begin(lab, f"echo {n} $PWD >>/tmp/turns") for n in (2, 3)]
    lab.close()
    lab.open()
    late = begin(lab, "echo 4 >>/tmp/turns")
    assert lab.run(lab.runtime.exec_state("dbx_1", rest[0])).status is ExecStatus.QUEUED
    lab.execute("touch /tmp/go")
    assert [lab.wait(e).exit_status for e in (first, *rest, late)] == [0, 0, 0, 0]
    assert lab.execute("cat /tmp/turns").stdout == "1\n2 /tmp\n3 /tmp\n4\n"


def test_a_stop_ends_the_line_and_nothing_is_left(lab: Lab) -> None:
    lab.start()
    begin(lab, "sleep 60")
    begin(lab, "sleep 60")
    lab.run(lab.runtime.stop("dbx_1"))
    deadline = time.monotonic() + WAIT_S
    while lab.runtime._shells._lines:
        lab.run(asyncio.sleep(0.02))
        assert time.monotonic() < deadline
    with pytest.raises(SandboxNotFoundError):
        begin(lab, "true")


def test_a_line_has_an_end_and_a_name_has_a_shape(shared: Lab) -> None:
    line = [begin(shared, "sleep 60", "full")]
    line += [begin(shared, "true", "full") for _ in range(WAITING_MAX - 1)]
    with pytest.raises(SandboxBusyError):
        begin(shared, "true", "full")
    for execution in reversed(line):
        shared.run(shared.runtime.exec_kill("dbx_1", execution))
    for name in ("", "x" * 257):
        with pytest.raises(InvalidValueError):
            begin(shared, "true", name)


def test_typing_works_in_a_shell(shared: Lab) -> None:
    execution = begin(shared, "read line; export TYPED=$line", "s8", stdin=True)
    shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"hello\n"))
    assert shared.wait(execution).exit_status == 0
    assert run(shared, "echo $TYPED", "s8") == "0 hello\n"


def test_what_another_user_of_the_box_leaves_for_a_shell_is_not_run(shared: Lab) -> None:
    run(shared, "true", "s9")
    file = shared.execute("ls /dev/shm/.shell-* | head -1").stdout.strip()
    assert file
    done = shared.execute(f"rm -f {file}; echo 'touch /tmp/owned' >{file}; chmod 666 {file}", root=True)
    assert done.exit_status == 0
    for number in range(1, 10):
        run(shared, "true", f"s{number}")
    assert shared.execute("test -e /tmp/owned").exit_status == 1
