import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.control.devbox_states import (
    TRANSITIONS_MAX,
    DevboxStatus,
    ShutdownReason,
    Step,
    decode_devbox,
    encode_devbox,
    end_by_request,
    observe,
    resume_by_request,
    start_transitions,
    suspend_by_request,
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


def test_a_nul_in_a_programs_last_words_does_not_reach_the_store() -> None:
    """PostgreSQL refuses it, and with it the whole report of the host."""
    step = observe(ROW, seen(ObservedPhase.FAILURE, detail="it said a\x00b"), 5000)
    assert step is not None
    assert step.row.detail == "it said a\ufffdb"


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


RUNNING = replace(ROW, status="running", run_since_ms=2000)


def taken(step: Step | None) -> DevboxRow:
    assert step is not None
    return step.row


def test_a_suspension_and_a_resume() -> None:
    suspending = suspend_by_request(RUNNING, 5000)
    assert suspending is not None
    assert suspending.is_news
    assert decode_devbox(suspending.row.document).phase is DesiredPhase.SUSPENDED
    assert observe(suspending.row, seen(ObservedPhase.RUNNING), 6000) is None, "a late word of its host"
    assert observe(suspending.row, seen(ObservedPhase.SUSPENDING), 6000) is None
    suspended = taken(observe(suspending.row, seen(ObservedPhase.SUSPENDED, 7000), 8000))
    assert (suspended.status, suspended.run_ms, suspended.run_since_ms) == ("suspended", 5000, None)

    resuming = taken(resume_by_request(suspended, 20_000))
    assert (resuming.status, resuming.expire_time_ms) == ("provisioning", 3_620_000)
    document = decode_devbox(resuming.document)
    assert (document.phase, document.generation) == (DesiredPhase.RUNNING, 2)
    assert observe(resuming, seen(ObservedPhase.SUSPENDED), 21_000) is None, "of the generation before"
    assert observe(resuming, seen(ObservedPhase.INITIALIZING, generation=2), 21_000) is None, "clients would give up"
    running = taken(observe(resuming, seen(ObservedPhase.RUNNING, 22_000, generation=2), 22_000))
    assert [status for status, _ in statuses(running)] == [
        "provisioning",
        "suspending",
        "suspended",
        "resuming",
        "running",
    ]
    assert (running.run_ms, running.run_since_ms) == (5000, 22_000)


@pytest.mark.parametrize("status", [status for status in DevboxStatus if status is not DevboxStatus.RUNNING])
def test_only_what_runs_is_suspended(status: DevboxStatus) -> None:
    assert suspend_by_request(replace(ROW, status=status.value), 5000) is None


@pytest.mark.parametrize("status", [status for status in DevboxStatus if status is not DevboxStatus.SUSPENDED])
def test_only_what_is_suspended_is_resumed(status: DevboxStatus) -> None:
    assert resume_by_request(replace(ROW, status=status.value), 5000) is None


def test_a_queued_devbox_is_provisioned_when_its_host_takes_it_up() -> None:
    queued = replace(ROW, status="queued")
    assert taken(observe(queued, seen(ObservedPhase.PROVISIONING), 5000)).status == "provisioning"


def test_idle_time_begins_when_it_runs() -> None:
    row = replace(ROW, idle_s=60, on_idle="suspend", expire_time_ms=61_000)
    assert taken(observe(row, seen(ObservedPhase.RUNNING, 50_000), 50_000)).expire_time_ms == 110_000


def test_a_failure_is_explained_in_the_history() -> None:
    row = taken(observe(ROW, seen(ObservedPhase.FAILURE, failure_reason="out_of_disk"), 5000))
    assert json.loads(row.transitions)[-1] == {
        "status": "failure",
        "transition_time_ms": 2000,
        "failure_reason": "out_of_disk",
    }


events = st.lists(
    st.one_of(
        st.sampled_from(["suspend", "resume", "shutdown"]),
        st.tuples(st.sampled_from(list(ObservedPhase)), st.integers(1, 3)),
    ),
    max_size=30,
)


@given(order=events)
def test_whatever_comes_in_whatever_order(order: list[str | tuple[ObservedPhase, int]]) -> None:
    row, now_ms, generations, ended = ROW, 2000, 1, None
    for event in order:
        now_ms += 1000
        before = row
        match event:
            case "suspend":
                step = suspend_by_request(row, now_ms)
            case "resume":
                step = resume_by_request(row, now_ms)
            case "shutdown":
                step = end_by_request(row, ShutdownReason.API_SHUTDOWN, now_ms)
            case (ObservedPhase() as phase, int(generation)):
                step = observe(row, seen(phase, now_ms, generation=generation), now_ms)
            case _:
                raise AssertionError(event)
        row = before if step is None else step.row
        document = decode_devbox(row.document)
        assert document.generation - generations in (0, 1)
        if document.generation > generations:
            # The next boot is asked for only when the host has said that nothing of the one before lives.
            assert before.status == "suspended"
        generations = document.generation
        if ended is not None:
            assert replace(row, released=False) == replace(ended, released=False), "what has ended stays as it is"
        elif row.end_time_ms is not None:
            ended = row
            assert (row.status in ("shutdown", "failure"), document.phase) == (True, DesiredPhase.SHUTDOWN)
        assert (row.status in ("suspending", "suspended")) == (document.phase is DesiredPhase.SUSPENDED)
        assert (row.run_since_ms is not None) == (row.status in ("running", "suspending"))
        assert row.run_ms <= now_ms - ROW.create_time_ms
        assert row.status in (
            "provisioning",
            "initializing",
            "running",
            "suspending",
            "suspended",
            "failure",
            "shutdown",
        )
