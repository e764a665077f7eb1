"""The OCI runtime's own processes on their way into a devbox, and what a devbox can do to those outside."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.boundary.conftest import put_program
from support.sandbox_lab import Lab, open_lab

pytestmark = pytest.mark.kernel

WAYS = {
    *("exe", "exe-read", "exe-write", "fd", "root", "cwd", "mem", "environ", "maps", "namespaces", "descriptor"),
    "ptrace",
}
ENTRIES_MAX = 300
"""Most are seen at the first or second: one takes some 20 ms, the watcher looks every millisecond."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("two")) as lab:
        lab.start()
        lab.start("dbx_2")
        yield lab


def test_the_runtime_cannot_be_taken_hold_of_on_its_way_in(two: Lab) -> None:
    """Its program, its descriptors, its root and its memory stay closed (CVE-2016-9962, CVE-2019-5736, CVE-2024-21626)."""
    watcher = two.begin(f"python3 {put_program(two, 'watcher.py')}", root=True)
    seen = ""
    for _ in range(ENTRIES_MAX):
        seen = two.execute("cat /tmp/watched", root=True).stdout
        if len(seen.splitlines()) > 5:
            break
    two.execute("touch /tmp/watched-enough", root=True)
    assert two.wait(watcher).exit_status == 0, two.output(watcher)
    own, *entering = (json.loads(line) for line in seen.splitlines())
    assert set(own) == WAYS - {"exe-write"}, "the control: a process of the sandbox's own stands open"
    assert len(entering) >= 5, "no process of the runtime's was ever seen"
    assert [ways for ways in entering if ways] == []


def test_signals_end_at_the_own_processes(two: Lab) -> None:
    """``kill -1`` means every process that the caller may signal: those of its own pid namespace."""
    other = two.begin("sleep 300", box="dbx_2")
    own = two.begin("sleep 300")
    with subprocess.Popen(("sleep", "300")) as outside:
        two.begin("kill -9 -1", root=True)
        assert two.wait(own).exit_status == 137, "the control: it is a kill that reaches"
        helpers = two.settings.state_dir / "sandboxes/dbx_2/exec" / other / "pumps"
        for line in helpers.read_text().splitlines():
            os.kill(int(line.split()[0]), 0)
        assert two.wait(other, box="dbx_2", timeout_s=0.0).exit_status is None
        assert outside.poll() is None
        outside.kill()
    assert two.execute("echo alive").stdout == "alive\n"
    two.run(two.runtime.exec_kill("dbx_2", other))


def test_every_process_has_the_same_few_rights(two: Lab) -> None:
    """Inheritable and ambient sets are empty (CVE-2022-29162 of runc left the first full), the bounding set is small."""
    script = (
        "import json, pathlib\n"
        "found = [dict(l.split(':\\t', 1) for l in p.read_text().splitlines() if ':\\t' in l)"
        " for p in pathlib.Path('/proc').glob('[0-9]*/status')]\n"
        "keys = ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')\n"
        "print(json.dumps([[s['Uid'].split()[0], *(s[k].strip() for k in keys)] for s in found]))\n"
    )
    sleeping = two.begin("sleep 300")
    said = {tuple(row) for row in json.loads(two.execute(f'python3 -c "{script}"', root=True).stdout)}
    two.run(two.runtime.exec_kill("dbx_1", sleeping))
    none, full = "0" * 16, "00000000800405fb"
    assert said == {("0", none, full, full, full, none, "1", "2"), ("1000", none, none, none, full, none, "1", "2")}


def test_set_user_id_programs_and_file_capabilities_give_nothing(two: Lab) -> None:
    """Root makes them for the box's user, as an image may hold them: no_new_privs takes both back."""
    two.execute(
        "cp /usr/bin/python3 /tmp/suid && chmod 4755 /tmp/suid && cp /usr/bin/python3 /tmp/capable && python3 -c '"
        'import os, struct; os.setxattr("/tmp/capable", "security.capability",'
        ' struct.pack("<IIIII", 0x02000001, 1 << 6 | 1 << 7, 0, 0, 0))\'',
        root=True,
    )
    for program in ("suid", "capable"):
        command = f"/tmp/{program} -c 'import os; print(os.geteuid()); os.setuid(0)'; grep ^CapEff /proc/self/status"
        done = two.execute(command)
        assert done.stdout == "1000\nCapEff:\t" + "0" * 16 + "\n"
        assert "PermissionError" in done.stderr
    assert two.execute(
        "stat -c %a /tmp/suid; python3 -c 'import os; print(os.listxattr(\"/tmp/capable\"))'"
    ).stdout == ("4755\n['security.capability']\n"), "the control: both are what they should be"


def test_a_crash_leaves_no_core(two: Lab, tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    done = two.execute("mkdir /tmp/crash && cd /tmp/crash && sh -c 'ulimit -c unlimited; kill -SEGV $$'; echo $?; ls")
    assert done.stdout == "139\n", pattern
    assert "ulimit" in done.stderr or "limit" in done.stderr
