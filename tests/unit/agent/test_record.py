"""Records of devboxes on disk."""

from pathlib import Path

import pytest

from outgate.agent.record import DevboxRecord, Outcome, RecordStore, Stage
from outgate.model.desired import ObservedPhase


def make_record(name: str, slot: int | None = 0, stage: Stage = Stage.RUNNING) -> DevboxRecord:
    return DevboxRecord(name, "acc_1", "npol_1", 1, stage, slot, 5)


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "devboxes")
    ended = DevboxRecord(
        "b", "acc_1", "npol_1", 2, Stage.ENDED, None, 7, 3, Outcome(ObservedPhase.FAILURE, 6, detail="why")
    )
    store.put(make_record("a"))
    store.put(ended)
    again = RecordStore(tmp_path / "devboxes")
    assert sorted(again.all(), key=lambda record: record.devbox_id) == [make_record("a"), ended]
    assert again.unreadable == ()


def test_a_removed_record_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.put(make_record("a"))
    store.remove("a")
    store.remove("a")
    assert store.get("a") is None
    assert RecordStore(tmp_path).all() == ()


def test_the_lowest_free_slot_is_found(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    assert store.find_free_slot(3) == 0
    for name, slot in (("a", 0), ("b", 1), ("c", None)):
        store.put(make_record(name, slot))
    assert store.find_free_slot(3) == 2
    store.put(make_record("d", 2))
    assert store.find_free_slot(3) is None
    store.remove("b")
    assert store.find_free_slot(3) == 1


def test_half_a_file_is_told_apart_from_none(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.put(make_record("a"))
    (tmp_path / "b.json").write_bytes(b'{"devbox_id":"b"')
    (tmp_path / "c.new").write_bytes(b"what was not yet renamed")
    again = RecordStore(tmp_path)
    assert again.unreadable == ("b",)
    assert [record.devbox_id for record in again.all()] == ["a"]
    assert not (tmp_path / "c.new").exists()


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "devboxes")
    store.put(make_record("a", 0))
    (tmp_path / "devboxes" / "a.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        store.put(make_record("a", 5))
    assert store.get("a") == make_record("a", 0)


@pytest.mark.parametrize("name", ["", "../a", ".hidden", "a/b"])
def test_an_id_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="file name"):
        RecordStore(tmp_path).put(make_record(name))
