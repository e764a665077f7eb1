"""Orphans are waited for, and children that somebody else waits for are left to them."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from outgate.server.children import Child, ChildPlan
from outgate.server.orphans import reap_orphans

def list_children():
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}

async def main():
    child = Child(ChildPlan("api", "child", environment=dict(os.environ)))
    reap_orphans(child.may_be)
    keeping = asyncio.create_task(child.run())
    adopted = set()
    while child.endings < 3:
        await asyncio.sleep(0.01)
        adopted |= list_children()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    async with asyncio.timeout(30):
        while list_children():
            await asyncio.sleep(0.01)
    print("seen", len(adopted))

asyncio.run(main())
"""
_CHILD = """
import os, subprocess, sys
# Two whose parent goes before they do.
subprocess.run(["sh", "-c", "sleep 0.1 & sleep 0.2 &"])
sys.exit(7)
"""


def test_orphans_are_waited_for_and_children_keep_their_status(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(_CHILD)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status=7") == 3, done.stdout
    assert int(done.stdout.split()[-1]) > 3, "orphans were adopted"
