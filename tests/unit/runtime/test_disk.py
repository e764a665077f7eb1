"""Records are read back as written; disks come and go as a whole."""

from pathlib import Path

import pytest

from outgate.runtime.base import SandboxError, SandboxSpec, SandboxUser
from outgate.runtime.disk import SandboxDisks, SandboxRecord, read_pid
from outgate.runtime.usermap import RANGES_MAX, IdRange, choose_range

RECORD = SandboxRecord(
    SandboxSpec("dbx_1", Path("/run/netns/x"), ("10.0.0.1",), SandboxUser("user", 1000), environment={"A": "b"}),
    IdRange(7),
    (Path("/var/lib/outgate/layers/one"), Path("/var/lib/outgate/layers/two")),
)


@pytest.fixture
def disks(tmp_path: Path) -> SandboxDisks:
    made = SandboxDisks(tmp_path)
    made.ensure()
    return made


def test_a_record_is_read_back_as_written(disks: SandboxDisks) -> None:
    disks.create("dbx_1", RECORD)
    assert disks["dbx_1"].read_record() == RECORD
    assert [name for name, _ in disks] == ["dbx_1"]


def test_a_sandbox_that_does_not_exist_has_no_record(disks: SandboxDisks) -> None:
    assert disks["dbx_2"].read_record() is None


def test_a_damaged_record_is_an_error_and_not_an_absent_sandbox(disks: SandboxDisks) -> None:
    disks.create("dbx_1", RECORD).record_file.write_text("{")
    with pytest.raises(SandboxError, match=r"sandbox\.json cannot be read"):
        disks["dbx_1"].read_record()


def test_removal_takes_everything_and_may_be_repeated(disks: SandboxDisks, tmp_path: Path) -> None:
    disk = disks.create("dbx_1", RECORD)
    deep = disk.overlay / "upper"
    for _ in range(100):
        deep = deep / "d"
        deep.mkdir()
    (deep / "link").symlink_to("/etc")
    disks.remove("dbx_1")
    disks.remove("dbx_1")
    assert list(disks) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["sandboxes", "trash"]
    assert Path("/etc/passwd").exists()


def test_an_interrupted_removal_is_finished(disks: SandboxDisks, tmp_path: Path) -> None:
    (tmp_path / "trash" / "half" / "way").mkdir(parents=True)
    disks.ensure()
    assert list((tmp_path / "trash").iterdir()) == []


def test_only_root_passes_to_the_disks(disks: SandboxDisks, tmp_path: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o700}


def test_pid_files_that_are_not_written_yet_hold_none(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert read_pid(file) is None
    file.write_text("")
    assert read_pid(file) is None
    file.write_text("123")
    assert read_pid(file) == 123


def test_ranges_are_disjoint_and_below_the_sign_bit() -> None:
    assert IdRange(0).first_id + 65536 == IdRange(1).first_id
    assert IdRange(RANGES_MAX - 1).first_id + 65536 <= 2**31


def test_the_lowest_free_range_is_chosen() -> None:
    assert choose_range({0, 1, 3}) == IdRange(2)


def test_no_range_is_given_twice_when_all_are_taken() -> None:
    with pytest.raises(SandboxError, match="All 4096 ranges"):
        choose_range(range(RANGES_MAX))
