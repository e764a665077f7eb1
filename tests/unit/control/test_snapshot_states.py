"""What a host's word makes of a snapshot."""

from dataclasses import replace

import pytest

from outgate.control.snapshot_states import (
    BEGIN_MS_MAX,
    UNREACHABLE_MS_MAX,
    SnapshotStatus,
    begin,
    miss_host,
    observe_snapshot,
)
from outgate.model.snapshots import SnapshotPhase, SnapshotState
from outgate.store.snapshots import SnapshotRow

ROW = SnapshotRow(
    id="snp_1",
    account_id="acct_1",
    host_id="host_1",
    source_devbox_id="dbx_1",
    source_blueprint_id=None,
    policy_id=None,
    name=None,
    commit_message=None,
    metadata="{}",
    status="in_progress",
    error_message=None,
    size_bytes=None,
    create_time_ms=1000,
    begun=False,
    released=False,
)


@pytest.mark.parametrize(
    ("state", "age_ms", "status", "error_message"),
    [
        (SnapshotState(SnapshotPhase.IN_PROGRESS), 10**9, None, None),
        (SnapshotState(SnapshotPhase.COMPLETE, size_bytes=7), 0, "complete", None),
        (SnapshotState(SnapshotPhase.ERROR, detail="No room."), 0, "error", "No room."),
        (None, BEGIN_MS_MAX, None, None),
        (None, BEGIN_MS_MAX + 1, "error", "Its host was restarted before the snapshot was complete."),
    ],
)
def test_each_word_of_the_host(
    state: SnapshotState | None, age_ms: int, status: str | None, error_message: str | None
) -> None:
    changed = observe_snapshot(ROW, state, ROW.create_time_ms + age_ms)
    if status is None:
        assert changed is None
        return
    size_bytes = None if state is None else state.size_bytes
    assert changed == replace(ROW, status=status, error_message=error_message, size_bytes=size_bytes)


def test_one_that_had_begun_and_is_not_known_any_more_has_failed_at_once() -> None:
    begun = begin(ROW, SnapshotState(SnapshotPhase.IN_PROGRESS), ROW.create_time_ms)
    assert begun == replace(ROW, begun=True)
    failed = observe_snapshot(begun, None, ROW.create_time_ms)
    assert failed is not None
    assert failed.status == "error"
    complete = begin(ROW, SnapshotState(SnapshotPhase.COMPLETE, size_bytes=3), ROW.create_time_ms)
    assert (complete.status, complete.size_bytes, complete.begun) == ("complete", 3, True)


@pytest.mark.parametrize("status", sorted(set(SnapshotStatus) - {SnapshotStatus.IN_PROGRESS}))
def test_what_is_over_stays_so(status: SnapshotStatus) -> None:
    over = replace(ROW, status=status.value)
    assert observe_snapshot(over, SnapshotState(SnapshotPhase.COMPLETE, size_bytes=7), 10**12) is None
    assert observe_snapshot(over, None, 10**12) is None
    assert miss_host(over, 10**12) is None


def test_a_host_that_is_gone_is_not_waited_for_for_ever() -> None:
    assert miss_host(ROW, ROW.create_time_ms + UNREACHABLE_MS_MAX) is None
    failed = miss_host(ROW, ROW.create_time_ms + UNREACHABLE_MS_MAX + 1)
    assert failed == replace(ROW, status="error", error_message="Its host does not answer.")
