"""Finding control groups in mount tables of each kind."""

import os
from pathlib import Path, PurePosixPath

import pytest

from outgate.runtime.cgroups import (
    CgroupLayout,
    count_oom_kills,
    holds_process,
    kill_processes,
    observe_layout,
    processes,
    remove_groups,
)

GROUP = PurePosixPath("/outgate-abc123/dbx_1")


def write_mountinfo(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text("22 21 0:20 / /proc rw - proc proc rw\n" + "".join(f"{line}\n" for line in lines))
    return file


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    mount = tmp_path / "unified"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("cpu memory pids\n")
    return mount


def test_version_2_alone(tmp_path: Path, unified: Path) -> None:
    layout = observe_layout(
        write_mountinfo(tmp_path, f"30 21 0:26 / {unified} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate")
    )
    assert layout == CgroupLayout({}, unified, frozenset({"cpu", "memory", "pids"}))
    assert layout.missing_limits == ()
    assert layout.directories(GROUP) == (unified / "outgate-abc123/dbx_1",)
    assert layout.limiting_directories(GROUP) == (unified / "outgate-abc123/dbx_1",)


def test_version_1_with_controllers_sharing_a_mount(tmp_path: Path) -> None:
    layout = observe_layout(
        write_mountinfo(
            tmp_path,
            "31 21 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "32 21 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory",
            "33 21 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
        )
    )
    assert layout.missing_limits == ("pids",)
    assert layout.unified is None
    assert layout.directories(GROUP) == (
        Path("/sys/fs/cgroup/cpu,cpuacct/outgate-abc123/dbx_1"),
        Path("/sys/fs/cgroup/memory/outgate-abc123/dbx_1"),
        Path("/sys/fs/cgroup/systemd/outgate-abc123/dbx_1"),
    )
    assert layout.limiting_directories(GROUP) == layout.directories(GROUP)[:2]


def test_both_at_once_where_version_2_controls_nothing(tmp_path: Path, unified: Path) -> None:
    (unified / "cgroup.controllers").write_text("\n")
    layout = observe_layout(
        write_mountinfo(
            tmp_path,
            "31 21 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
            f"30 21 0:26 / {unified} rw - cgroup2 cgroup2 rw",
        )
    )
    assert layout.has("pids")
    assert layout.missing_limits == ("cpu", "memory")
    assert layout.directories(GROUP) == (
        Path("/sys/fs/cgroup/pids/outgate-abc123/dbx_1"),
        unified / "outgate-abc123/dbx_1",
    )
    assert layout.limiting_directories(GROUP) == (Path("/sys/fs/cgroup/pids/outgate-abc123/dbx_1"),)


def test_a_process_is_held_by_its_own_group_and_by_those_above_and_by_no_other() -> None:
    own = PurePosixPath(Path("/proc/self/cgroup").read_text().splitlines()[0].split(":", 2)[2])
    assert holds_process(own, os.getpid())
    assert holds_process(PurePosixPath("/"), os.getpid())
    assert not holds_process(GROUP, os.getpid())
    assert not holds_process(PurePosixPath("/"), 2**22 + 1)


def test_a_process_outside_the_group_is_not_killed() -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "30"], os.environ)
    kill_processes(GROUP, {child})
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, 15)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -15


def test_processes_of_groups_below_count_and_foreign_ones_do_not(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("12\n0\n13\n")
    (tmp_path / "below" / "cgroup.procs").write_text("14\n")
    assert processes([tmp_path, tmp_path / "absent"]) == {12, 13, 14}


def test_groups_are_removed_from_below_and_stuck_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "free" / "below").mkdir(parents=True)
    (tmp_path / "stuck" / "below").mkdir(parents=True)
    (tmp_path / "stuck" / "below" / "held").touch()
    stuck = remove_groups([tmp_path / "free", tmp_path / "stuck", tmp_path / "absent"])
    assert stuck == (tmp_path / "stuck" / "below", tmp_path / "stuck")
    assert not (tmp_path / "free").exists()


@pytest.mark.parametrize(
    ("file", "text", "is_unified"),
    [
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", False),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\n", True),
    ],
    ids=["version 1", "version 2"],
)
def test_oom_kills_are_counted(tmp_path: Path, file: str, text: str, is_unified: bool) -> None:
    group = tmp_path / "outgate-abc123/dbx_1"
    group.mkdir(parents=True)
    (group / file).write_text(text)
    layout = (
        CgroupLayout({}, tmp_path, frozenset({"memory"}))
        if is_unified
        else CgroupLayout({"memory": tmp_path}, None, frozenset())
    )
    assert count_oom_kills(layout, GROUP) == 3
    assert count_oom_kills(layout, GROUP / "gone") == 0
