"""Executions: what comes out, what they end with, how they are ended, and that they outlive the daemon."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from outgate.errors import InvalidValueError
from outgate.runtime.base import (
    ExecSpec,
    ExecState,
    ExecStatus,
    ExecutionNotFoundError,
    KillScope,
    OutputStream,
    SandboxError,
    SandboxNotFoundError,
)
from outgate.runtime.pumps import parse_pumps
from support.sandbox_lab import WAIT_S, Lab

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0),
        ("false", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -INT $$", 130),
        ("kill -KILL $$", 137),
        ("no-such-program", 127),
        ("/etc/passwd", 126),
        ("syntax (", 2),
        ("", 0),
        ("bash -c 'exit 3' | true", 0),
        ("exec sh -c 'exit 9'", 9),
    ],
)
def test_exit_statuses(shared: Lab, command: str, status: int) -> None:
    assert shared.execute(command).exit_status == status


def test_streams_are_kept_apart_and_may_be_opened_anew(shared: Lab) -> None:
    done = shared.execute("echo 1; echo 2 >&2; echo 3 >/dev/stdout; echo 4 >/dev/stderr; echo 5; echo 6 >&2")
    assert (done.stdout, done.stderr) == ("1\n3\n5\n", "2\n4\n6\n")


def test_all_of_a_large_output_is_there_when_the_state_says_completed(shared: Lab) -> None:
    execution = shared.begin("head -c 50000000 /dev/zero | tr '\\0' 'x'; echo; echo end")
    assert shared.wait(execution).exit_status == 0
    file = shared.settings.state_dir / "sandboxes/dbx_1/exec" / execution / "stdout"
    assert file.stat().st_size == 50_000_005
    output = shared.run(shared.runtime.exec_output("dbx_1", execution, OutputStream.STDOUT, 1))
    assert (output.text, output.truncated) == ("end\n", True)


def test_output_just_before_the_end_is_never_missing(shared: Lab) -> None:
    for number in range(20):
        assert shared.execute(f"head -c 60000 /dev/zero; echo {number}").stdout.endswith(f"\0{number}\n")


def test_binary_output(shared: Lab) -> None:
    execution = shared.begin("printf 'a\\377\\000b'")
    shared.wait(execution)
    file = shared.settings.state_dir / "sandboxes/dbx_1/exec" / execution / "stdout"
    assert file.read_bytes() == b"a\xff\0b"
    assert shared.output(execution) == "a\ufffd\0b"


def test_it_is_a_login_shell_with_the_sandboxs_environment(lab: Lab) -> None:
    lab.start(environment={"GREETING": 'it\'s "quoted" $HOME', "EMPTY": ""})
    lab.execute("echo 'export FROM_PROFILE=yes' >~/.profile")
    done = lab.execute('shopt -q login_shell && echo login; echo "$GREETING|${EMPTY-unset}|$FROM_PROFILE"')
    assert done.stdout == 'login\nit\'s "quoted" $HOME||yes\n'


def test_the_same_id_does_not_run_twice(shared: Lab) -> None:
    spec = ExecSpec("again", "echo ran >>/tmp/again")
    for _ in range(3):
        shared.run(shared.runtime.exec_start("dbx_1", spec))
        shared.wait("again")
    assert shared.execute("cat /tmp/again").stdout == "ran\n"


def test_whoever_asks_while_it_starts_waits_for_the_start(shared: Lab) -> None:
    async def ask() -> ExecState:
        spec = ExecSpec("twice-at-once", "sleep 0.2; exit 3")
        _, _, state = await asyncio.gather(
            shared.runtime.exec_start("dbx_1", spec),
            shared.runtime.exec_start("dbx_1", spec),
            shared.runtime.exec_wait("dbx_1", "twice-at-once", WAIT_S),
        )
        return state

    assert shared.run(ask()) == ExecState("twice-at-once", ExecStatus.COMPLETED, 3)


def test_waiting_ends_after_its_time(shared: Lab) -> None:
    execution = shared.begin("sleep 1000")
    assert shared.wait(execution, timeout_s=0.2).status is ExecStatus.RUNNING
    assert shared.run(shared.runtime.exec_state("dbx_1", execution)).status is ExecStatus.RUNNING
    shared.run(shared.runtime.exec_kill("dbx_1", execution))
    assert shared.wait(execution).exit_status == 137


def test_a_process_in_the_background_does_not_hold_up_the_end_and_is_still_heard(shared: Lab) -> None:
    execution = shared.begin(
        "(until test -e /tmp/speak; do sleep 0.05; done; echo late; sleep 60) & echo early; exit 5"
    )
    assert shared.wait(execution).exit_status == 5
    assert shared.output(execution) == "early\n"
    shared.execute("touch /tmp/speak")
    deadline = time.monotonic() + WAIT_S
    while shared.output(execution) != "early\nlate\n" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shared.output(execution) == "early\nlate\n"


def test_a_process_that_writes_without_end_does_not_hold_up_the_end(shared: Lab) -> None:
    execution = shared.begin("setsid yes & sleep 0.1; exit 6")
    assert shared.wait(execution).exit_status == 6
    assert shared.execute("until pkill -x yes; do sleep 0.05; done").exit_status == 0


def test_what_helped_ended_commands_does_not_count_against_the_sandbox(lab: Lab) -> None:
    lab.start(pids_max=64)
    before = lab.count_processes()
    for _ in range(40):
        assert lab.execute("true").exit_status == 0
    deadline = time.monotonic() + WAIT_S
    # The commands' own processes are for the host's first process to take note of.
    while lab.count_processes() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lab.count_processes() <= before


def test_a_pump_that_stalls_loses_nothing(shared: Lab) -> None:
    execution = shared.begin("until test -e /tmp/end; do sleep 0.05; done; echo last words")
    (note,) = shared.settings.state_dir.glob(f"sandboxes/dbx_1/**/{execution}/pumps")
    pumps = parse_pumps(note.read_text())
    os.kill(pumps.stdout.pid, signal.SIGSTOP)

    async def scenario() -> ExecState:
        waiting = asyncio.create_task(shared.runtime.exec_wait("dbx_1", execution, WAIT_S))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        os.kill(pumps.stdout.pid, signal.SIGCONT)
        return await waiting

    shared.execute("touch /tmp/end")
    assert shared.run(scenario()).exit_status == 0
    assert shared.output(execution) == "last words\n"


def test_the_whole_group_is_killed(shared: Lab) -> None:
    execution = shared.begin("sleep 4001 & sleep 4002 & (trap '' TERM INT HUP; sleep 4003) & wait")
    shared.execute("until test $(pgrep -c -x -f 'sleep 400[123]') = 3; do sleep 0.05; done")
    shared.run(shared.runtime.exec_kill("dbx_1", execution))
    assert shared.wait(execution).exit_status == 137
    assert shared.execute("pgrep -x -f 'sleep 400[123]'").stdout == ""
    shared.run(shared.runtime.exec_kill("dbx_1", execution))


def test_the_command_alone_is_killed(shared: Lab) -> None:
    execution = shared.begin("sleep 4004 & echo started; wait")
    shared.execute("until pgrep -x -f 'sleep 4004'; do sleep 0.05; done")
    shared.run(shared.runtime.exec_kill("dbx_1", execution, KillScope.COMMAND))
    assert shared.wait(execution).exit_status == 137
    assert shared.execute("pgrep -x -f 'sleep 4004'").stdout != ""
    shared.execute("pkill -x -f 'sleep 4004'")


def test_a_program_that_kills_everything_it_may_ends_its_execution_and_not_the_sandbox(lab: Lab) -> None:
    lab.start()
    assert lab.execute("kill -9 -1", root=True).exit_status == 137
    assert lab.execute("echo alive").stdout == "alive\n"


def test_stdin(shared: Lab) -> None:
    execution = shared.begin("cat; echo done", stdin=True)
    shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"one\n"))
    shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"two\n"))
    assert shared.wait(execution, timeout_s=0.1).status is ExecStatus.RUNNING
    for _ in range(2):
        shared.run(shared.runtime.exec_close_stdin("dbx_1", execution))
    assert shared.wait(execution).exit_status == 0
    assert shared.output(execution) == "one\ntwo\ndone\n"
    with pytest.raises(SandboxError, match=r"closed before|does not read"):
        shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"three\n"))


def test_more_input_than_a_pipe_holds(shared: Lab) -> None:
    execution = shared.begin("sleep 0.3; wc -c", stdin=True)
    shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"x" * 1_000_000))
    shared.run(shared.runtime.exec_close_stdin("dbx_1", execution))
    assert shared.wait(execution).exit_status == 0
    assert shared.output(execution) == "1000000\n"


def test_input_that_nobody_reads_any_more(shared: Lab) -> None:
    execution = shared.begin("sleep 0.3", stdin=True)
    with pytest.raises(SandboxError, match="does not read"):
        shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"x" * 1_000_000))
    assert shared.wait(execution).exit_status == 0
    with pytest.raises(SandboxError, match=r"closed before|does not read"):
        shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"x"))


def test_without_stdin_there_is_nothing_to_read_or_to_write_to(shared: Lab) -> None:
    execution = shared.begin("cat; echo end")
    assert shared.wait(execution).exit_status == 0
    assert shared.output(execution) == "end\n"
    with pytest.raises(SandboxError, match="without a standard input"):
        shared.run(shared.runtime.exec_write_stdin("dbx_1", execution, b"x"))


def test_executions_that_do_not_exist(shared: Lab) -> None:
    for question in (
        shared.runtime.exec_state("dbx_1", "absent"),
        shared.runtime.exec_wait("dbx_9", "absent", 1.0),
        shared.runtime.exec_output("dbx_1", "absent", OutputStream.STDOUT, 10),
        shared.runtime.exec_kill("dbx_1", "absent"),
    ):
        with pytest.raises(ExecutionNotFoundError):
            shared.run(question)
    with pytest.raises(SandboxNotFoundError):
        shared.run(shared.runtime.exec_start("dbx_9", ExecSpec("e", "true")))
    with pytest.raises(InvalidValueError):
        shared.run(shared.runtime.exec_state("dbx_1", "../../dbx_1/exec"))


def test_orphans_are_collected_by_the_first_process(shared: Lab) -> None:
    done = shared.execute(
        "for n in 1 2 3; do sh -c 'sleep 0.05 & sleep 0.01'; done; sleep 0.5; ps -eo ppid,stat | grep -c '^ *1 *Z'"
    )
    assert done.stdout == "0\n"


def test_executions_die_first_when_memory_runs_out(shared: Lab) -> None:
    assert shared.execute("cat /proc/self/oom_score_adj").stdout == "500\n"


def test_everything_goes_on_while_no_daemon_runs_and_is_found_again(lab: Lab) -> None:
    lab.start(environment={"KEPT": "yes"})
    pid = lab.run(lab.runtime.observe())["dbx_1"].pid
    finished = lab.begin("echo before; exit 7")
    lab.wait(finished)
    ending = lab.begin("sleep 0.5; echo meanwhile; exit 8")
    running = lab.begin("echo first; until test -e /tmp/go; do sleep 0.05; done; echo last; exit 9")
    reading = lab.begin("cat", stdin=True)
    lab.run(lab.runtime.exec_write_stdin("dbx_1", reading, b"before\n"))
    lab.close()
    time.sleep(0.8)

    lab.open()
    observed = lab.run(lab.runtime.observe())["dbx_1"]
    assert (observed.pid, observed.generation) == (pid, 1)
    assert (lab.wait(finished).exit_status, lab.output(finished)) == (7, "before\n")
    assert (lab.wait(ending).exit_status, lab.output(ending)) == (8, "meanwhile\n")
    assert lab.run(lab.runtime.exec_state("dbx_1", running)).status is ExecStatus.RUNNING
    lab.run(lab.runtime.exec_write_stdin("dbx_1", reading, b"after\n"))
    lab.run(lab.runtime.exec_close_stdin("dbx_1", reading))
    assert (lab.wait(reading).exit_status, lab.output(reading)) == (0, "before\nafter\n")
    assert lab.execute("touch /tmp/go; echo $KEPT").stdout == "yes\n"
    assert (lab.wait(running).exit_status, lab.output(running)) == (9, "first\nlast\n")


def test_an_execution_whose_process_number_was_given_to_another_is_completed(lab: Lab) -> None:
    lab.start()
    execution = lab.begin("sleep 60")
    directory = lab.settings.state_dir / "sandboxes/dbx_1/exec" / execution
    pid = int((directory / "pid").read_text())
    # As after a reuse of the number: same number, other start.
    (directory / "process").write_text(f"{pid} 1")
    assert lab.wait(execution).exit_status == 137
    lab.run(lab.runtime.exec_kill("dbx_1", execution))
    assert Path(f"/proc/{pid}").exists()


def test_a_status_that_is_none_counts_as_killed(lab: Lab) -> None:
    lab.start()
    execution = lab.begin("sleep 60")
    directory = lab.settings.state_dir / "sandboxes/dbx_1/exec" / execution
    for written in (b"", b"99999999999999999999\n", b"-1\n", b"256\n", b"\xff\n", b"12", b"x" * 100_000):
        (directory / "status").write_bytes(written)
        os.kill(int((directory / "pid").read_text()), 9)
        assert lab.wait(execution).exit_status == 137


def test_helpers_share_the_sandboxs_limits_and_fate(lab: Lab) -> None:
    lab.start()
    execution = lab.begin("sleep 60", stdin=True)
    lines = (lab.settings.state_dir / "sandboxes/dbx_1/exec" / execution / "pumps").read_text().splitlines()
    pids = [int(line.split()[0]) for line in lines]
    assert len(pids) == 4
    for pid in pids:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        assert groups.count(f"{lab.group}/dbx_1") >= 1
        # A session of its own: no signal that is meant for the daemon's group reaches it.
        assert os.getsid(pid) != os.getsid(0)
    lab.run(lab.runtime.stop("dbx_1"))
    deadline = time.monotonic() + WAIT_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
