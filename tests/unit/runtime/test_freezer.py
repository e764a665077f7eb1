"""The freezer's files of both versions of control groups, played by plain files."""

import threading
from pathlib import Path, PurePosixPath

import pytest

from outgate.runtime import freezer
from outgate.runtime.base import SandboxError
from outgate.runtime.cgroups import CgroupLayout
from outgate.runtime.freezer import frozen, thaw

GROUP = PurePosixPath("/outgate-x/dbx_1")


def version1(root: Path) -> tuple[CgroupLayout, Path]:
    group = root / "freezer/outgate-x/dbx_1"
    group.mkdir(parents=True)
    (group / "freezer.state").write_text("THAWED\n")
    return CgroupLayout({"freezer": root / "freezer"}, root / "unified", frozenset()), group / "freezer.state"


def version2(root: Path) -> tuple[CgroupLayout, Path]:
    group = root / "outgate-x/dbx_1"
    group.mkdir(parents=True)
    (group / "cgroup.freeze").write_text("0")
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    return CgroupLayout({}, root, frozenset({"cpu", "memory", "pids"})), group / "cgroup.freeze"


def test_version_1_is_preferred_as_the_oci_runtimes_do(tmp_path: Path) -> None:
    layout, state = version1(tmp_path)
    with frozen(layout, GROUP):
        assert state.read_text() == "FROZEN"
    assert state.read_text() == "THAWED"


def test_version_2(tmp_path: Path) -> None:
    layout, switch = version2(tmp_path)
    with frozen(layout, GROUP):
        assert switch.read_text() == "1"
    assert switch.read_text() == "0"


def test_it_thaws_whatever_happens(tmp_path: Path) -> None:
    layout, switch = version2(tmp_path)

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError), frozen(layout, GROUP):
        fail()
    assert switch.read_text() == "0"


def test_it_waits_until_all_have_stopped(tmp_path: Path) -> None:
    layout, switch = version2(tmp_path)
    events = switch.with_name("cgroup.events")
    events.write_text("populated 1\nfrozen 0\n")
    later = threading.Timer(0.05, events.write_text, ("populated 1\nfrozen 1\n",))
    later.start()
    with frozen(layout, GROUP):
        assert events.read_text().endswith("frozen 1\n")
    later.join()


def test_what_does_not_stop_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, switch = version2(tmp_path)
    switch.with_name("cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(freezer, "_FREEZE_S_MAX", 0.02)
    with pytest.raises(SandboxError, match="dbx_1 did not stop"), frozen(layout, GROUP):
        pytest.fail("it was not frozen")
    assert switch.read_text() == "0"


def test_a_host_that_cannot_freeze_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no freezer"), frozen(CgroupLayout({}, None, frozenset()), GROUP):
        pytest.fail("it was not frozen")
    absent, _ = version2(tmp_path)
    with pytest.raises(SandboxError, match="cannot be held still"), frozen(absent, PurePosixPath("/outgate-x/gone")):
        pytest.fail("it was not frozen")


def test_what_is_gone_needs_no_thaw(tmp_path: Path) -> None:
    layout, _ = version1(tmp_path)
    thaw(layout, PurePosixPath("/outgate-x/gone"))
    thaw(CgroupLayout({}, None, frozenset()), GROUP)
