"""Commands, files and logs on the whole server, by the official clients: blocking, asyncio and JavaScript."""

import asyncio
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloopSDK
from runloop_api_client.sdk.devbox import Devbox

from support.js_client import needs_js, run_js
from support.server_processes import Part, find_process
from support.stage import Stage

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

WAIT_S = 30.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def box(shared_stage: Stage) -> Iterator[Devbox]:
    """One devbox for tests that leave it as it was."""
    made = shared_stage.client.devbox.create(launch_parameters={"launch_commands": ["echo set up"]})
    yield made
    made.shutdown()


def _rss_kib(stage: Stage, part: Part) -> int:
    """Memory of the server's process that runs ``part``."""
    return int(Path(f"/proc/{find_process(stage.daemon, part)}/statm").read_text().split()[1]) * 4


def test_exec_with_callbacks_and_all_of_a_long_output(box: Devbox) -> None:
    seen: dict[str, str] = {"out": "", "err": "", "both": ""}

    def note(name: str) -> Callable[[str], None]:
        def take(text: str) -> None:
            seen[name] += text

        return take

    result = box.cmd.exec(
        "for n in $(seq 500); do echo é€😀 $n; done; echo end >&2; exit 4",
        stdout=note("out"),
        stderr=note("err"),
        output=note("both"),
    )
    expected = "".join(f"é€😀 {n}\n" for n in range(1, 501))
    assert (result.exit_code, result.failed) == (4, True)
    assert (seen["out"], seen["err"]) == (expected, "end\n")
    assert sorted(seen["both"].splitlines()) == sorted((expected + "end\n").splitlines())
    # The answer itself holds the last hundred lines; the rest is read from the stream.
    assert (result.stdout(), result.stdout(num_lines=2)) == (expected, "é€😀 499\né€😀 500")


def test_typing_interrupting_and_killing(box: Devbox) -> None:
    reading = box.cmd.exec_async("cat; echo over", attach_stdin=True)
    reading.send_std_in("one\n")
    reading.send_std_in("zwei ü\n")
    reading.close_std_in()
    assert reading.result().stdout() == "one\nzwei ü\nover\n"
    with pytest.raises(runloop_api_client.RunloopError, match="Failed to send stdin"):
        reading.send_std_in("late")
    sleeping = box.cmd.exec_async("sleep 60", attach_stdin=True)
    client = box._client
    sent = client.devboxes.executions.send_std_in(sleeping.execution_id, devbox_id=box.id, signal="INTERRUPT")
    assert sent.success
    assert sleeping.result().exit_code == 130
    closed = box.cmd.exec_async("sleep 60")
    with pytest.raises(runloop_api_client.BadRequestError, match="attach_stdin"):
        closed.send_std_in("x")
    closed.kill()
    assert closed.get_state().status == "completed"
    alone, group = (box.cmd.exec_async(f"sleep {n} & echo $!; wait") for n in (7001, 7002))
    box.cmd.exec("until test $(pgrep -c -x -f 'sleep 700[12]') = 2; do sleep 0.05; done")
    alone.kill()
    client.devboxes.executions.kill(group.execution_id, devbox_id=box.id, kill_process_group=True)
    assert box.cmd.exec("pgrep -f 'sleep 700[1]'; pgrep -f 'sleep 700[2]'").stdout() == alone.get_state().stdout
    box.cmd.exec("pkill -f 'sleep 700[1]'")


def test_files_in_both_directions(box: Devbox, tmp_path: Path) -> None:
    written = box.file.write(file_path="a dir/ü.txt", contents="grüße\n")
    assert written.exit_status == 0
    assert box.file.read(file_path="/home/user/a dir/ü.txt") == "grüße\n"
    local = tmp_path / "local.bin"
    local.write_bytes(os.urandom(5 * MIB))
    box.file.upload(path="up.bin", file=local)
    assert box.file.download(path="up.bin") == local.read_bytes()
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    assert box.cmd.exec("sha256sum up.bin; stat -c '%U %a' up.bin").stdout() == f"{digest}  up.bin\nuser 644\n"
    for problem, path in (
        (runloop_api_client.NotFoundError, "absent"),
        (runloop_api_client.BadRequestError, "/home/user"),
        (runloop_api_client.BadRequestError, "/dev/null"),
    ):
        with pytest.raises(problem):
            box.file.read(file_path=path)
    with pytest.raises(runloop_api_client.BadRequestError, match="disk is full"):
        box.file.upload(path="/dev/shm/full", file=os.urandom(1024) * (70 * 1024))


def test_the_log_tells_what_was_run_by_whom(box: Devbox) -> None:
    execution = box.cmd.exec("echo find me; echo and me >&2; exit 5")
    mine = box.logs(execution_id=execution.execution_id).logs
    # Two pipes: nobody can say which of two lines written at once came first.
    assert {(entry.level, entry.message) for entry in mine if entry.message} == {
        ("info", "find me"),
        ("error", "and me"),
    }
    assert [entry.exit_code for entry in mine if entry.exit_code is not None] == [5]
    assert {entry.cmd_id for entry in mine} == {execution.execution_id}
    everything = box.logs().logs
    assert any(entry.source == "setup_commands" and entry.message == "set up" for entry in everything)
    assert any(entry.message == "find me" for entry in everything)
    assert [entry.timestamp_ms for entry in everything] == sorted(entry.timestamp_ms for entry in everything)


def test_the_blocking_and_the_older_ways_to_run(box: Devbox) -> None:
    client = box._client
    with pytest.deprecated_call():
        assert client.devboxes.execute_sync(box.id, command="echo all; exit 6").exit_status == 6
    ids = {client.devboxes.execute(box.id, command="echo $$", command_id="same").execution_id for _ in range(3)}
    assert len(ids) == 1
    for command in ("cd /tmp; export X=kept", "pwd; echo $X"):
        done = client.devboxes.execute(box.id, command=command, command_id=command, extra_body={"shell_name": "s"})
    assert done.stdout == "/tmp\nkept\n"


def test_asyncio(shared_stage: Stage, box: Devbox) -> None:
    async def scenario() -> None:
        async with AsyncRunloopSDK(bearer_token=shared_stage.daemon.api_key, base_url=shared_stage.daemon.url) as sdk:
            mine = sdk.devbox.from_id(box.id)
            seen: list[str] = []
            result = await mine.cmd.exec("echo one; sleep 0.2; echo two", stdout=seen.append)
            assert ("".join(seen), result.exit_code) == ("one\ntwo\n", 0)
            results = await asyncio.gather(*(mine.cmd.exec(f"echo {n}") for n in range(10)))
            assert [await done.stdout() for done in results] == [f"{n}\n" for n in range(10)]
            await mine.file.write(file_path="async.txt", contents="x" * 1000)
            assert await mine.file.read(file_path="async.txt") == "x" * 1000
            await mine.file.upload(path="async.bin", file=b"\0\xff" * 1000)
            assert await mine.file.download(path="async.bin") == b"\0\xff" * 1000

    asyncio.run(scenario())


@needs_js[0]
@needs_js[1]
def test_javascript(shared_stage: Stage) -> None:
    assert "# pass 8" in run_js("commands.test.mjs", shared_stage.daemon.url, shared_stage.daemon.api_key)


def test_a_stream_of_hundreds_of_megabytes_leaves_the_server_small(shared_stage: Stage, box: Devbox) -> None:
    headers = {"authorization": f"Bearer {shared_stage.daemon.api_key}"}
    execution = box.cmd.exec_async("head -c 209715200 /dev/zero | tr '\\0' 'x'")
    url = f"{shared_stage.daemon.url}/v1/devboxes/{box.id}/executions/{execution.execution_id}/stream_stdout_updates"
    parts = (Part.API, Part.AGENT)
    before = {part: _rss_kib(shared_stage, part) for part in parts}
    size = 0
    with httpx.Client(headers=headers, timeout=60) as client, client.stream("GET", url) as answer:
        for number, piece in enumerate(answer.iter_raw()):
            size += piece.count(b"x")
            if number == 100:
                # A reader that stops is waited for; nobody reads ahead for it.
                time.sleep(1.0)
                assert all(_rss_kib(shared_stage, part) - before[part] < 64 * 1024 for part in parts)
    assert size == 200 * MIB
    assert all(_rss_kib(shared_stage, part) - before[part] < 64 * 1024 for part in parts)


@pytest.mark.parametrize("part", [Part.API, Part.AGENT])
def test_followers_lose_nothing_when_a_part_of_the_server_dies(shared_stage: Stage, box: Devbox, part: Part) -> None:
    seen: list[str] = []
    execution = box.cmd.exec_async("for n in $(seq 30); do echo line $n; sleep 0.1; done")

    def follow() -> None:
        offset = 0
        while True:
            try:
                for chunk in box._client.devboxes.executions.stream_stdout_updates(
                    execution.execution_id, devbox_id=box.id, offset=str(offset)
                ):
                    seen.append(chunk.output)
                    offset = chunk.offset or offset
            except (runloop_api_client.APIError, httpx.HTTPError):
                continue
            return

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.5)
    os.kill(find_process(shared_stage.daemon, part), signal.SIGKILL)
    follower.join(WAIT_S)
    assert not follower.is_alive()
    assert "".join(seen) == "".join(f"line {n}\n" for n in range(1, 31))
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            result = execution.result()
            break
        except runloop_api_client.APIError:
            assert time.monotonic() < deadline
    assert result.stdout() == "".join(seen)
