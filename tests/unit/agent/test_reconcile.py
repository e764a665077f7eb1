"""What is to be done next about one devbox: the table, and what holds in every row of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.agent.reconcile import START_ATTEMPTS_MAX, EndReason, Facts, NextStep, Step, decide_next_step
from outgate.agent.record import DevboxRecord, Outcome, Stage
from outgate.model.desired import DesiredPhase, ObservedPhase
from outgate.runtime.base import ObservedSandbox, SandboxPhase
from support.agent_world import make_devbox

WANTED = make_devbox("a")
UNWANTED = make_devbox("a", phase=DesiredPhase.SHUTDOWN)
SUSPENDED = make_devbox("a", phase=DesiredPhase.SUSPENDED)
RESUMED = make_devbox("a", generation=2)
RUNS = ObservedSandbox("a", 1, SandboxPhase.RUNNING, 7, 0)
EXITED = ObservedSandbox("a", 1, SandboxPhase.EXITED, None, 0)
KILLED = ObservedSandbox("a", 1, SandboxPhase.EXITED, None, 1)


def record(stage: Stage, attempts: int = 1, *, generation: int = 1, keeps_disk: bool = False) -> DevboxRecord:
    is_over = stage in (Stage.ENDING, Stage.ENDED)
    outcome = Outcome(ObservedPhase.FAILURE, 1) if is_over else None
    slot = None if stage in (Stage.ENDED, Stage.SUSPENDED) else 0
    return DevboxRecord("a", "acc_1", "npol_1", generation, stage, slot, 1, attempts, outcome, keeps_disk)


def used(stage: Stage, attempts: int = 1, *, generation: int = 1) -> DevboxRecord:
    """The record of a devbox that has run."""
    return record(stage, attempts, generation=generation, keeps_disk=True)


P, S, R, X, E = (record(stage) for stage in (Stage.PLACED, Stage.STARTING, Stage.RUNNING, Stage.ENDING, Stage.ENDED))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(Facts(WANTED, None, None, False, False), Step.PLACE, id="a new devbox gets a slot"),
        pytest.param(Facts(WANTED, P, None, False, True), Step.FILTER, id="then its link and rules"),
        pytest.param(Facts(WANTED, P, None, True, True), Step.START, id="then it is started"),
        pytest.param(Facts(WANTED, R, RUNS, True, True), Step.NOTHING, id="and runs"),
        pytest.param(Facts(WANTED, R, RUNS, False, True), Step.FILTER, id="one that ran before is confirmed"),
        pytest.param(Facts(WANTED, P, RUNS, True, True), Step.CLEAR_SANDBOX, id="nothing runs before its start"),
        pytest.param(Facts(WANTED, S, RUNS, True, True), Step.CLEAR_SANDBOX, id="a broken start begins anew"),
        pytest.param(Facts(WANTED, S, None, True, True), Step.RETRY, id="with nothing left of it"),
        pytest.param(
            Facts(WANTED, record(Stage.STARTING, START_ATTEMPTS_MAX), None, True, True),
            EndReason.START_BROKEN_OFF,
            id="but not for ever",
        ),
        pytest.param(Facts(WANTED, R, EXITED, True, True), EndReason.SANDBOX_GONE, id="an exited sandbox is an end"),
        pytest.param(Facts(WANTED, R, None, True, True), EndReason.SANDBOX_GONE, id="so is one that vanished"),
        pytest.param(Facts(WANTED, R, KILLED, True, True), EndReason.OUT_OF_MEMORY, id="memory has its own reason"),
        pytest.param(
            Facts(WANTED, R, RUNS, True, True, is_namespace_own=False),
            EndReason.NAMESPACE_LOST,
            id="unfiltered network",
        ),
        pytest.param(
            Facts(WANTED, R, RUNS, True, True, is_entrypoint_over=True), EndReason.ENTRYPOINT_EXIT, id="entrypoint"
        ),
        pytest.param(
            Facts(
                WANTED, R, replace(RUNS, oom_kills=1), True, True, is_entrypoint_over=True, is_entrypoint_killed=True
            ),
            EndReason.ENTRYPOINT_OUT_OF_MEMORY,
            id="entrypoint that needed too much",
        ),
        pytest.param(
            Facts(WANTED, R, RUNS, True, True, is_entrypoint_over=True, is_entrypoint_killed=True),
            EndReason.ENTRYPOINT_EXIT,
            id="entrypoint that somebody killed",
        ),
        pytest.param(Facts(WANTED, None, RUNS, False, True), EndReason.RECORD_LOST, id="a sandbox nobody remembers"),
        pytest.param(Facts(SUSPENDED, used(Stage.RUNNING), RUNS, True, True), Step.SUSPEND, id="a suspension"),
        pytest.param(Facts(SUSPENDED, used(Stage.SUSPENDING), RUNS, True, True), Step.HALT, id="first its processes"),
        pytest.param(Facts(SUSPENDED, used(Stage.SUSPENDING), EXITED, True, True), Step.UNFILTER, id="then its link"),
        pytest.param(Facts(SUSPENDED, used(Stage.SUSPENDING), EXITED, False, False), Step.REST, id="then its slot"),
        pytest.param(Facts(SUSPENDED, used(Stage.SUSPENDED), EXITED, False, False), Step.NOTHING, id="its disk stays"),
        pytest.param(
            Facts(SUSPENDED, used(Stage.RUNNING), EXITED, True, True),
            Step.UNFILTER,
            id="it died in time to be suspended",
        ),
        pytest.param(Facts(RESUMED, used(Stage.SUSPENDED), EXITED, False, False), Step.REBOOT, id="a resume"),
        pytest.param(
            Facts(RESUMED, used(Stage.PLACED, generation=2), EXITED, False, True), Step.FILTER, id="is filtered anew"
        ),
        pytest.param(
            Facts(RESUMED, used(Stage.PLACED, generation=2), EXITED, True, True), Step.START, id="and runs on its disk"
        ),
        pytest.param(
            Facts(RESUMED, used(Stage.STARTING, generation=2), RUNS, True, True), Step.HALT, id="whose start broke off"
        ),
        pytest.param(
            Facts(RESUMED, used(Stage.STARTING, generation=2), EXITED, True, True), Step.RETRY, id="keeping its disk"
        ),
        pytest.param(
            Facts(RESUMED, used(Stage.SUSPENDED), None, False, False), EndReason.DISK_LOST, id="unless that is gone"
        ),
        pytest.param(
            Facts(UNWANTED, used(Stage.SUSPENDED), EXITED, False, False), EndReason.NOT_WANTED, id="or not wanted"
        ),
        pytest.param(Facts(SUSPENDED, None, None, False, False), EndReason.RECORD_LOST, id="nor can it rest unknown"),
        pytest.param(Facts(RESUMED, None, None, False, False), EndReason.RECORD_LOST, id="or be resumed unknown"),
        pytest.param(Facts(UNWANTED, R, RUNS, True, True), EndReason.NOT_WANTED, id="a shutdown"),
        pytest.param(Facts(UNWANTED, X, RUNS, True, True), Step.CLEAR_SANDBOX, id="first the processes"),
        pytest.param(Facts(UNWANTED, X, None, True, True), Step.UNFILTER, id="then link and rules"),
        pytest.param(Facts(UNWANTED, X, None, False, False), Step.FINISH, id="then the slot"),
        pytest.param(Facts(UNWANTED, E, None, False, False), Step.NOTHING, id="it stays to be reported"),
        pytest.param(Facts(None, E, None, False, False), Step.FORGET, id="until it is forgotten"),
        pytest.param(Facts(UNWANTED, None, None, False, False), EndReason.NOT_WANTED, id="never known here"),
        pytest.param(Facts(None, R, RUNS, True, True), EndReason.NOT_WANTED, id="not in the full state"),
        pytest.param(Facts(None, None, RUNS, False, False), Step.CLEAR_SANDBOX, id="an orphan"),
        pytest.param(Facts(None, None, None, False, True), Step.UNFILTER, id="an orphaned link"),
        pytest.param(Facts(WANTED, E, None, False, False), Step.NOTHING, id="what failed stays failed"),
        pytest.param(Facts(RESUMED, E, None, False, False), Step.NOTHING, id="whatever is asked for later"),
        pytest.param(Facts(RESUMED, R, RUNS, True, True), Step.HALT, id="a reboot ends the old one"),
        pytest.param(Facts(RESUMED, R, EXITED, True, True), Step.UNFILTER, id="with its network"),
        pytest.param(Facts(RESUMED, R, EXITED, False, False), Step.REBOOT, id="and begins anew"),
        pytest.param(Facts(WANTED, E, RUNS, False, False), Step.CLEAR_SANDBOX, id="nothing runs after its end"),
        pytest.param(Facts(WANTED, E, None, False, True), Step.UNFILTER, id="nor is it linked"),
    ],
)
def test_the_table(facts: Facts, expected: Step | EndReason) -> None:
    wanted = NextStep(Step.END, expected) if isinstance(expected, EndReason) else NextStep(expected)
    assert decide_next_step(facts) == wanted


sandboxes = st.none() | st.builds(
    ObservedSandbox,
    devbox_id=st.just("a"),
    generation=st.integers(1, 3),
    phase=st.sampled_from(list(SandboxPhase)),
    pid=st.none() | st.just(7),
    oom_kills=st.integers(0, 1),
)
facts_of_any_kind = st.builds(
    Facts,
    desired=st.none()
    | st.builds(make_devbox, st.just("a"), phase=st.sampled_from(list(DesiredPhase)), generation=st.integers(1, 3)),
    record=st.none()
    | st.builds(
        record,
        st.sampled_from(list(Stage)),
        st.integers(0, 4),
        generation=st.integers(1, 3),
        keeps_disk=st.booleans(),
    ),
    sandbox=sandboxes,
    is_filtered=st.booleans(),
    is_linked=st.booleans(),
    is_namespace_own=st.booleans(),
    is_entrypoint_over=st.booleans(),
    is_entrypoint_killed=st.booleans(),
)


@given(facts=facts_of_any_kind)
def test_what_holds_in_every_row(facts: Facts) -> None:
    step = decide_next_step(facts)
    if step.step is Step.START:
        assert facts.is_filtered
        assert facts.sandbox is None or facts.sandbox.phase is SandboxPhase.EXITED
        assert facts.desired is not None
        assert facts.desired.phase is DesiredPhase.RUNNING
    if step.step in (Step.UNFILTER, Step.FINISH, Step.REST, Step.REBOOT):
        assert facts.sandbox is None or facts.sandbox.phase is SandboxPhase.EXITED, "no link goes before its processes"
    if step.step in (Step.FINISH, Step.REST, Step.REBOOT):
        assert not facts.is_linked, "no slot goes before its link, and none is taken with the old one there"
    if step.step in (Step.PLACE, Step.FILTER, Step.RETRY, Step.REBOOT, Step.SUSPEND, Step.REST):
        assert facts.desired is not None
    if step.step is Step.CLEAR_SANDBOX and facts.record is not None and facts.record.keeps_disk:
        assert facts.record.stage in (Stage.ENDING, Stage.ENDED), "a disk in use goes with its devbox only"
    if step.step is Step.SUSPEND:
        assert facts.desired is not None
        assert facts.desired.phase is DesiredPhase.SUSPENDED
    assert (step.step is Step.END) == (step.reason is not None)
