"""Sandboxes come, hold their limits, survive the daemon, and go without a trace."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from outgate.runtime.base import ExecSpec, ImageNotFoundError, SandboxError, SandboxPhase, SandboxUser
from outgate.runtime.oci import OciRuntime
from support.sandbox_lab import NO_TRACES, WAIT_S, Lab, find_traces

pytestmark = pytest.mark.kernel

_FORK_UNTIL_REFUSED = """
import os, time
for number in range(100):
    try:
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(3000)
    except BlockingIOError:
        print(number)
        break
"""


def test_twenty_sandboxes_leave_nothing(lab: Lab) -> None:
    names = [f"dbx_{number}" for number in range(20)]

    async def live(name: str) -> int | None:
        await lab.runtime.start(lab.spec(name))
        # Something of each kind that could stay: background processes, a deep tree, an open standard input.
        command = "setsid sleep 3000 & mkdir -p /tmp/$(printf 'd/%.0s' $(seq 60)); touch /usr/local/x; exit 4"
        await lab.runtime.exec_start(name, ExecSpec("e1", command))
        state = await lab.runtime.exec_wait(name, "e1", WAIT_S)
        return state.exit_status

    async def all_live() -> list[int | None]:
        return await asyncio.gather(*(live(name) for name in names))

    async def all_stop() -> None:
        await asyncio.gather(*(lab.runtime.stop(name) for name in names))

    assert lab.run(all_live()) == [4] * 20
    observed = lab.run(lab.runtime.observe())
    assert {name: sandbox.phase for name, sandbox in observed.items()} == dict.fromkeys(names, SandboxPhase.RUNNING)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    lab.run(all_stop())
    assert find_traces(lab) == NO_TRACES
    assert lab.run(lab.runtime.observe()) == {}
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_each_sandbox_has_ids_and_processes_of_its_own(lab: Lab) -> None:
    lab.start("dbx_1")
    lab.start("dbx_2")
    maps = {Path(f"/proc/{box.pid}/uid_map").read_text() for box in lab.run(lab.runtime.observe()).values()}
    assert len(maps) == 2
    lab.execute("echo mine >/tmp/x; chmod 666 /tmp/x", box="dbx_1")
    assert lab.execute("ls /tmp", box="dbx_2").stdout == ""
    lab.execute("sleep 5001 &", box="dbx_1")
    assert "sleep 5001" in lab.execute("ps -ef", box="dbx_1").stdout
    assert "sleep 5001" not in lab.execute("ps -ef", box="dbx_2").stdout


def test_a_start_that_is_cancelled_is_finished_before_the_stop_that_follows(lab: Lab) -> None:
    async def cancel_and_stop(after_s: float) -> None:
        start = asyncio.create_task(lab.runtime.start(lab.spec()))
        await asyncio.sleep(after_s)
        start.cancel()
        await asyncio.wait((start,))
        await lab.runtime.stop("dbx_1")

    for after_ms in (0, 5, 10, 20, 40):
        lab.run(cancel_and_stop(after_ms / 1000))
        assert find_traces(lab) == NO_TRACES


def test_starting_and_stopping_may_be_repeated(lab: Lab) -> None:
    lab.run(lab.runtime.stop("dbx_1"))
    lab.start()
    pid = lab.run(lab.runtime.observe())["dbx_1"].pid
    lab.start()
    assert lab.run(lab.runtime.observe())["dbx_1"].pid == pid
    for _ in range(2):
        lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES


def test_a_higher_generation_boots_again_on_the_same_disk(lab: Lab) -> None:
    lab.start()
    lab.execute("echo kept >~/file; sleep 3000 &")
    first = lab.run(lab.runtime.observe())["dbx_1"]
    lab.start(generation=2, environment={"BOOT": "second"})
    second = lab.run(lab.runtime.observe())["dbx_1"]
    assert (second.generation, second.phase) == (2, SandboxPhase.RUNNING)
    assert second.pid != first.pid
    assert lab.execute("cat ~/file; echo $BOOT; pgrep -x sleep | wc -l").stdout == "kept\nsecond\n1\n"


def test_the_first_processs_end_is_seen_and_cleared_away(lab: Lab) -> None:
    lab.start()
    pid = lab.run(lab.runtime.observe())["dbx_1"].pid
    assert pid is not None
    os.kill(pid, 9)
    deadline = time.monotonic() + WAIT_S
    while lab.run(lab.runtime.observe())["dbx_1"].phase is SandboxPhase.RUNNING and time.monotonic() < deadline:
        time.sleep(0.02)
    observed = lab.run(lab.runtime.observe())["dbx_1"]
    assert (observed.phase, observed.pid) == (SandboxPhase.EXITED, None)
    lab.start()
    assert lab.execute("echo again").stdout == "again\n"
    lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES


def test_a_new_daemon_sees_and_stops_what_the_old_one_started(lab: Lab) -> None:
    lab.start(generation=3)
    before = lab.run(lab.runtime.observe())
    lab.close()
    lab.open()
    assert lab.run(lab.runtime.observe()) == before
    lab.start("dbx_2")
    ids = {Path(f"/proc/{box.pid}/uid_map").read_text() for box in lab.run(lab.runtime.observe()).values()}
    assert len(ids) == 2
    lab.run(lab.runtime.stop("dbx_1"))
    lab.run(lab.runtime.stop("dbx_2"))
    assert find_traces(lab) == NO_TRACES


def test_teardown_removes_everything_without_having_been_prepared(lab: Lab) -> None:
    lab.start("dbx_1")
    lab.start("dbx_2")
    stranger = OciRuntime(lab.settings)
    lab.run(stranger.teardown())
    lab.run(stranger.aclose())
    assert not list(Path("/sys/fs/cgroup").glob(f"*{lab.group}"))
    assert not (lab.settings.run_dir / "sandbox").exists()
    assert not lab.settings.engine.root.exists()
    lab.close()
    lab.open()
    assert find_traces(lab) == NO_TRACES


def test_a_record_without_a_process_counts_as_exited(lab: Lab) -> None:
    lab.start()
    (lab.settings.state_dir / "sandboxes/dbx_1/init.pid").unlink()
    assert lab.run(lab.runtime.observe())["dbx_1"].phase is SandboxPhase.EXITED
    lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES


def test_a_start_that_fails_leaves_nothing(lab: Lab) -> None:
    with pytest.raises(ImageNotFoundError, match="no image 'absent'"):
        lab.start(image="absent")
    with pytest.raises(SandboxError, match="no network namespace"):
        lab.start(netns=Path("/run/netns/absent"))
    with pytest.raises(SandboxError, match="cannot be entered"):
        lab.start(netns=Path("/etc/hostname"))
    assert find_traces(lab) == NO_TRACES
    lab.start()
    assert lab.execute("echo fine").stdout == "fine\n"


def test_the_daemons_own_network_is_never_a_sandboxs(lab: Lab) -> None:
    with pytest.raises(SandboxError, match="daemon's own network namespace"):
        lab.start(netns=Path("/proc/self/ns/net"))
    assert find_traces(lab) == NO_TRACES


def test_a_user_of_another_name_is_entered(lab: Lab) -> None:
    lab.start(user=SandboxUser("ada", 4711))
    assert lab.execute("id; pwd; touch file; stat -c %U:%G file").stdout == (
        "uid=4711(ada) gid=4711(ada) groups=4711(ada)\n/home/ada\nada:ada\n"
    )


def test_processes_are_limited(lab: Lab) -> None:
    lab.start(pids_max=40)
    made = lab.execute(f"python3 -c '{_FORK_UNTIL_REFUSED}'")
    assert 10 < int(made.stdout) < 40
    lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES


def test_memory_is_limited_and_its_end_is_counted(lab: Lab) -> None:
    lab.start(memory_mib=64)
    done = lab.execute("python3 -c 'x = bytearray(200 << 20)'; echo $?")
    assert done.stdout == "137\n"
    observed = lab.run(lab.runtime.observe())["dbx_1"]
    assert (observed.phase, observed.oom_kills) == (SandboxPhase.RUNNING, 1)


def test_processor_time_is_limited(lab: Lab) -> None:
    lab.start(cpu_cores=0.1)
    command = "python3 -c 'import time; e = time.monotonic() + 1\nwhile time.monotonic() < e: pass\nprint(time.process_time())'"
    assert float(lab.execute(command).stdout) < 0.5


def test_root_cannot_take_the_limits_off(lab: Lab) -> None:
    lab.start(memory_mib=64)
    lab.execute("mount -o remount,rw /sys/fs/cgroup; echo -1 >/sys/fs/cgroup/memory/memory.limit_in_bytes", root=True)
    assert lab.execute("python3 -c 'x = bytearray(200 << 20)'; echo $?", root=True).stdout == "137\n"


def test_sandboxes_outlive_a_killed_daemon(lab: Lab) -> None:
    """A process of its own starts the sandbox and an execution, then dies by SIGKILL with all of its process group."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from outgate.runtime.base import *
from outgate.runtime.engine import Engine, EngineKind
from outgate.runtime.oci import OciRuntime, OciSettings

async def main():
    engine = Engine(EngineKind.RUNC, Path({str(lab.settings.engine.binary)!r}), Path({str(lab.settings.engine.root)!r}))
    runtime = OciRuntime(OciSettings(
        engine, Path({str(lab.settings.state_dir)!r}), Path({str(lab.settings.run_dir)!r}), {lab.settings.instance!r}))
    await runtime.prepare()
    await runtime.start(SandboxSpec("dbx_1", Path({str(lab.netns)!r}), (), SandboxUser("user", 1000)))
    await runtime.exec_start("dbx_1", ExecSpec("e1", "sleep 1; echo survived; exit 3"))
    os.killpg(0, signal.SIGKILL)

asyncio.run(main())
"""
    python = Path(__file__).parents[3] / ".venv/bin/python"
    died = subprocess.run((python, "-c", script), start_new_session=True, check=False, timeout=WAIT_S)
    assert died.returncode == -9
    lab.close()
    lab.open()
    assert lab.run(lab.runtime.observe())["dbx_1"].phase is SandboxPhase.RUNNING
    assert (lab.wait("e1").exit_status, lab.output("e1")) == (3, "survived\n")
