import json
from dataclasses import replace

import pytest

from outgate.control.devbox_states import (
    TRANSITIONS_MAX,
    DevboxStatus,
    ShutdownReason,
    decode_devbox,
    encode_devbox,
    end_by_request,
    observe,
    start_transitions,
)
from outgate.model.desired import DesiredPhase, DevboxDocument, ObservedDevbox, ObservedPhase
from outgate.store.devboxes import DevboxRow

DOCUMENT = DevboxDocument("dbx_a", "acct_a", "npol_a", DesiredPhase.RUNNING)
ROW = DevboxRow(
    id="dbx_a",
    account_id="acct_a",
    host_id="host_a",
    policy_id="npol_a",
    key_id="key_a",
    name=None,
    metadata="{}",
    launch_parameters="{}",
    status="provisioning",
    transitions=start_transitions(DevboxStatus.PROVISIONING, 1000),
    document=encode_devbox(DOCUMENT),
    detail="",
    failure_reason=None,
    shutdown_reason=None,
    create_time_ms=1000,
    end_time_ms=None,
    keep_alive_s=3600,
    expire_time_ms=3_601_000,
    released=False,
    seq=1,
)


def seen(phase: ObservedPhase, time_ms: int = 2000, **more: object) -> ObservedDevbox:
    return ObservedDevbox("dbx_a", phase, time_ms, **more)  # type: ignore[arg-type] # test shorthand


def statuses(row: DevboxRow) -> list[tuple[str, int]]:
    return [(entry["status"], entry["transition_time_ms"]) for entry in json.loads(row.transitions)]


def test_a_start_is_followed_and_is_no_news_to_the_host() -> None:
    step = observe(ROW, seen(ObservedPhase.INITIALIZING), 5000)
    assert step is not None
    then = observe(step.row, seen(ObservedPhase.RUNNING, 3000), 5000)
    assert then is not None
    assert (step.is_news, then.is_news) == (False, False)
    assert statuses(then.row) == [("provisioning", 1000), ("initializing", 2000), ("running", 3000)]
    assert observe(then.row, seen(ObservedPhase.RUNNING, 4000), 5000) is None


def test_a_host_whose_clock_is_ahead_does_not_date_things_into_the_future() -> None:
    step = observe(ROW, seen(ObservedPhase.RUNNING, 9_999_999), 5000)
    assert step is not None
    assert statuses(step.row)[-1] == ("running", 5000)


def test_a_shutdown_asked_for_shows_at_once_and_the_host_hears_of_it() -> None:
    step = end_by_request(ROW, ShutdownReason.API_SHUTDOWN, 4000)
    assert step is not None
    assert step.is_news
    assert (step.row.status, step.row.end_time_ms, step.row.shutdown_reason) == ("shutdown", 4000, "api_shutdown")
    assert decode_devbox(step.row.document).phase is DesiredPhase.SHUTDOWN
    assert not step.row.released
    assert end_by_request(step.row, ShutdownReason.KEEP_ALIVE_TIMEOUT, 5000) is None


def test_an_ended_devbox_never_comes_back_and_is_released_once() -> None:
    ended = end_by_request(ROW, ShutdownReason.API_SHUTDOWN, 4000)
    assert ended is not None
    assert observe(ended.row, seen(ObservedPhase.RUNNING), 5000) is None
    released = observe(ended.row, seen(ObservedPhase.SHUTDOWN), 5000)
    assert released is not None
    assert released.is_news
    assert released.row == replace(ended.row, released=True)
    assert observe(released.row, seen(ObservedPhase.SHUTDOWN), 6000) is None


def test_a_devbox_that_ends_by_itself_is_released_at_once() -> None:
    step = observe(ROW, seen(ObservedPhase.SHUTDOWN, shutdown_reason="entrypoint_exit"), 5000)
    assert step is not None
    assert (step.row.status, step.row.shutdown_reason, step.row.released) == ("shutdown", "entrypoint_exit", True)
    assert decode_devbox(step.row.document).phase is DesiredPhase.SHUTDOWN


def test_a_failure_says_why_and_is_cleared_away_before_it_is_released() -> None:
    told = seen(ObservedPhase.FAILURE, failure_reason="execution_failed", detail="launch command 1 exited with 2")
    step = observe(ROW, told, 5000)
    assert step is not None
    assert (step.row.status, step.row.failure_reason, step.row.released) == ("failure", "execution_failed", False)
    assert step.row.detail == "launch command 1 exited with 2"
    assert decode_devbox(step.row.document).phase is DesiredPhase.SHUTDOWN
    gone = observe(step.row, seen(ObservedPhase.SHUTDOWN), 6000)
    assert gone is not None
    assert (gone.row.released, gone.row.status) == (True, "failure")


@pytest.mark.parametrize("phase", ObservedPhase)
def test_word_of_another_boot_is_ignored(phase: ObservedPhase) -> None:
    assert observe(ROW, seen(phase, generation=2), 5000) is None


def test_the_history_is_bounded() -> None:
    row = ROW
    for n in range(TRANSITIONS_MAX):
        phase = ObservedPhase.RUNNING if n % 2 else ObservedPhase.INITIALIZING
        step = observe(row, seen(phase, 2000 + n), 99_999)
        assert step is not None
        row = step.row
    assert len(statuses(row)) == TRANSITIONS_MAX
    assert statuses(row)[0] == ("initializing", 2000)
