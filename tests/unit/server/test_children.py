"""Children that are kept running."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from outgate.server import children
from outgate.server.children import Child, ChildPlan


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module called ``child`` that the test writes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "child.py"


async def until(condition: "object") -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_child_that_ends_is_started_again_and_the_last_is_stopped(module: Path, tmp_path: Path) -> None:
    out = tmp_path / "pids"
    module.write_text(f"import os, time\nopen({str(out)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n")
    child = Child(ChildPlan("api", "child", environment=dict(os.environ)))

    async def scenario() -> None:
        keeping = asyncio.create_task(child.run())
        await until(lambda: len(pids(out)) == 1)
        os.kill(pids(out)[0], signal.SIGKILL)
        await until(lambda: len(pids(out)) == 2)
        assert child.endings == 1
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    asyncio.run(scenario())
    for pid in pids(out):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_that_does_not_stop_is_killed(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_WAIT_S", 0.3)
    out = tmp_path / "pids"
    module.write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(out)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n"
    )

    async def scenario() -> None:
        keeping = asyncio.create_task(Child(ChildPlan("api", "child", environment=dict(os.environ))).run())
        await until(lambda: pids(out))
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(pids(out)[0], 0)


def test_a_child_dies_with_its_parent(module: Path, tmp_path: Path) -> None:
    out = tmp_path / "pids"
    module.write_text(
        "import os, sys, time\nfrom outgate.privileges import die_with_parent\n"
        "die_with_parent(int(sys.argv[sys.argv.index('--parent') + 1]))\n"
        f"open({str(out)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n"
    )
    program = (
        "import asyncio, os\nfrom outgate.server.children import Child, ChildPlan\n"
        "asyncio.run(Child(ChildPlan('api', 'child', environment=dict(os.environ))).run())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as parent:
        deadline_s = time.monotonic() + 20
        while not pids(out):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        parent.kill()
    (pid,) = pids(out)
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_child_that_cannot_be_started_is_tried_again(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is out of memory or processes just then; the supervisor must not end for it, and all with it."""
    out, failures = tmp_path / "pids", [OSError(errno.EAGAIN, "no more processes"), OSError(errno.ENOMEM, "no memory")]
    module.write_text(f"import os, time\nopen({str(out)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n")
    start = asyncio.create_subprocess_exec

    async def fail_at_first(*command: str, **options: Any) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail_at_first)
    child = Child(ChildPlan("api", "child", environment=dict(os.environ)))

    async def scenario() -> None:
        keeping = asyncio.create_task(child.run())
        await until(lambda: pids(out))
        assert child.endings == 2
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    asyncio.run(scenario())


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(ChildPlan("api", "child", environment={"OUTGATE_DATABASE_URL": "hunter2"}))
