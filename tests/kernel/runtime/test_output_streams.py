"""Following what executions write: as it comes, from any byte, without loss, in bounded memory, on bounded disk."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outgate.runtime.base import ExecStatus, ExecutionNotFoundError, OutputStream
from support.sandbox_lab import WAIT_S, Lab

pytestmark = pytest.mark.kernel

MIB = 1 << 20


async def follow(lab: Lab, execution: str, *, stream: OutputStream = OutputStream.STDOUT, offset: int = 0) -> bytes:
    pieces = await lab.runtime.exec_stream("dbx_1", execution, stream, offset)
    return b"".join([piece async for piece in pieces])


def directory(lab: Lab, execution: str) -> Path:
    return lab.settings.state_dir / "sandboxes/dbx_1/exec" / execution


def test_pieces_come_while_the_command_runs(shared: Lab) -> None:
    execution = shared.begin("echo first; until test -e /tmp/go-on; do sleep 0.02; done; echo last; rm /tmp/go-on")

    async def scenario() -> list[bytes]:
        pieces = await shared.runtime.exec_stream("dbx_1", execution, OutputStream.STDOUT, 0)
        async with asyncio.timeout(WAIT_S):
            first = await anext(pieces)
            await shared.runtime.write_file("dbx_1", "/tmp/go-on", _nothing())
            return [first, b"".join([piece async for piece in pieces])]

    assert shared.run(scenario()) == [b"first\n", b"last\n"]


def test_streams_are_followed_apart_from_any_byte_and_after_the_end(shared: Lab) -> None:
    execution = shared.begin("printf 'o\\303\\251\\377'; printf err >&2")
    assert shared.run(follow(shared, execution)) == b"o\xc3\xa9\xff"
    assert shared.run(follow(shared, execution, stream=OutputStream.STDERR)) == b"err"
    for offset, rest in ((1, b"\xc3\xa9\xff"), (4, b""), (400, b"")):
        assert shared.run(follow(shared, execution, offset=offset)) == rest


def test_many_follow_one_execution_and_each_gets_everything(shared: Lab) -> None:
    execution = shared.begin("for n in $(seq 200); do echo line $n; done; sleep 0.1; echo end")

    async def scenario() -> list[bytes]:
        return await asyncio.gather(*(follow(shared, execution) for _ in range(20)))

    expected = b"".join(b"line %d\n" % n for n in range(1, 201)) + b"end\n"
    assert shared.run(scenario()) == [expected] * 20


def test_a_background_process_that_writes_without_end_does_not_hold_up_the_end(shared: Lab) -> None:
    execution = shared.begin("echo mine; setsid yes & exit 0")
    assert shared.run(follow(shared, execution)).startswith(b"mine\n")
    assert shared.execute("until pkill -x yes; do sleep 0.05; done").exit_status == 0


def test_two_hundred_megabytes_arrive_whole_and_none_of_them_stays_in_memory(shared: Lab) -> None:
    execution = shared.begin("head -c 209715200 /dev/zero")

    async def scenario() -> int:
        size = 0
        pieces = await shared.runtime.exec_stream("dbx_1", execution, OutputStream.STDOUT, 0)
        async for piece in pieces:
            size += len(piece)
            if size < MIB:
                # Whoever takes slowly is waited for, and nothing is read ahead meanwhile.
                await asyncio.sleep(0.001)
        return size

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert shared.run(scenario()) == 200 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
    shared.execute("true")


def test_who_stops_following_leaves_nothing_open(shared: Lab) -> None:
    execution = shared.begin("echo one; sleep 60")

    async def scenario() -> None:
        pieces = await shared.runtime.exec_stream("dbx_1", execution, OutputStream.STDOUT, 0)
        assert await anext(pieces) == b"one\n"
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await pieces.aclose()

    shared.run(scenario())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        shared.run(scenario())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    shared.run(shared.runtime.exec_kill("dbx_1", execution))


def test_what_is_not_there_cannot_be_followed(shared: Lab) -> None:
    with pytest.raises(ExecutionNotFoundError):
        shared.run(shared.runtime.exec_stream("dbx_1", "absent", OutputStream.STDOUT, 0))


def test_a_stream_goes_on_behind_a_new_daemon(lab: Lab) -> None:
    lab.start()
    execution = lab.begin("echo before; sleep 1; echo after")
    lab.close()
    lab.open()
    assert lab.run(follow(lab, execution)) == b"before\nafter\n"
    assert lab.run(follow(lab, execution, offset=7)) == b"after\n"


def test_a_program_that_writes_more_than_is_kept_goes_on_and_is_told_apart(lab: Lab) -> None:
    lab.runtime._budget._bytes_max = 4 * MIB
    lab.start()
    execution = lab.begin("head -c 20000000 /dev/zero && echo whole >&2")
    assert lab.wait(execution).exit_status == 0
    assert lab.output(execution, stream=OutputStream.STDERR) == "whole\n"
    assert (directory(lab, execution) / "stdout").stat().st_size <= 4 * MIB
    assert lab.run(lab.runtime.exec_output("dbx_1", execution, OutputStream.STDOUT, 1)).truncated
    assert not lab.run(lab.runtime.exec_output("dbx_1", execution, OutputStream.STDERR, 1)).truncated


def test_many_that_write_at_once_share_the_budget(lab: Lab) -> None:
    lab.runtime._budget._bytes_max = 4 * MIB
    lab.start()
    command = (
        "until test -e /tmp/go; do sleep 0.02; done; for n in $(seq 300); do head -c 100000 /dev/zero; sleep 0.01; done"
    )
    executions = [lab.begin(command) for _ in range(4)]
    lab.execute("touch /tmp/go")
    deadline = time.monotonic() + WAIT_S
    while any(lab.wait(execution, timeout_s=0.05).status is ExecStatus.RUNNING for execution in executions):
        lab.run(lab.runtime.observe())
        assert time.monotonic() < deadline
    taken = sum((directory(lab, execution) / "stdout").stat().st_size for execution in executions)
    # 120 MB were written. Between two looks some more than the budget may be kept, but not much.
    assert taken < 12 * MIB
    assert all(
        lab.run(lab.runtime.exec_output("dbx_1", execution, OutputStream.STDOUT, 1)).truncated
        for execution in executions
    )
    assert [lab.wait(execution).exit_status for execution in executions] == [0] * 4


def test_the_oldest_are_forgotten_when_room_is_needed_and_none_that_runs(lab: Lab) -> None:
    lab.runtime._budget._bytes_max = 4 * MIB
    lab.start()
    running = lab.begin("head -c 100000 /dev/zero; sleep 60")
    ended = []
    for _ in range(5):
        ended.append(lab.begin("head -c 1000000 /dev/zero"))
        lab.wait(ended[-1])
    with pytest.raises(ExecutionNotFoundError):
        lab.wait(ended[0])
    assert lab.wait(ended[-1]).exit_status == 0
    assert lab.wait(running, timeout_s=0).status is ExecStatus.RUNNING
    # The same after a new start, which finds what there is.
    lab.close()
    lab.open()
    lab.runtime._budget._bytes_max = MIB
    latest = lab.begin("echo latest")
    assert lab.wait(latest).exit_status == 0
    with pytest.raises(ExecutionNotFoundError):
        lab.wait(ended[-1])
    assert lab.wait(running, timeout_s=0).status is ExecStatus.RUNNING


def test_a_status_file_that_a_program_filled_is_cut(lab: Lab) -> None:
    lab.start()
    execution = lab.begin("sleep 60")
    status = directory(lab, execution) / "status"
    status.write_bytes(b"x" * 1_000_000)
    lab.run(lab.runtime.observe())
    assert status.stat().st_size == 8


def test_no_environment_stays_on_the_host_beside_the_output(lab: Lab) -> None:
    lab.start(environment={"TOKEN": "very-secret-value"})
    execution = lab.begin('test "$TOKEN" = very-secret-value')
    assert lab.wait(execution).exit_status == 0
    for file in directory(lab, execution).iterdir():
        assert b"very-secret-value" not in file.read_bytes() or file.name == "about.json"
    assert not (directory(lab, execution) / "process.json").exists()


async def _nothing() -> AsyncIterator[bytes]:
    yield b""
