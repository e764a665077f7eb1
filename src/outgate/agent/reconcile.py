"""What is to be done next about one devbox: a pure function of what is wanted and what is there.

The agent asks again after each step until the answer is ``NOTHING``, so a step may be broken off anywhere
(by SIGKILL too) and the next answer goes on from what is really there. Two rules hold in every row:

* ``START`` is answered only when links, chain and gate entry are confirmed (``is_filtered``);
* taking apart goes in reverse: first the processes, then the gate entry and the link, last the slot.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from outgate.agent.record import DevboxRecord, Stage
from outgate.model.desired import DesiredPhase, DevboxDocument
from outgate.runtime.base import ObservedSandbox, SandboxPhase

START_ATTEMPTS_MAX: Final = 3
"""A devbox whose start was broken off this often (the agent died each time) is given up."""


class Step(Enum):
    """One step. All may be repeated."""

    NOTHING = auto()
    PLACE = auto()
    """Give it a slot, in the wanted generation."""
    FILTER = auto()
    """Have link, chain and gate entry confirmed."""
    START = auto()
    """Start the sandbox and run the launch commands."""
    CLEAR_SANDBOX = auto()
    """Stop whatever runs under its id and remove it."""
    RETRY = auto()
    """Back to PLACED: nobody has used it yet."""
    REBOOT = auto()
    """Back to PLACED in the wanted, newer generation."""
    END = auto()
    """Write down the outcome and begin to take it apart."""
    UNFILTER = auto()
    """Take away its gate entry, link and namespace."""
    FINISH = auto()
    """Give its slot back; keep the outcome to be reported."""
    FORGET = auto()
    """Remove its record."""


class EndReason(Enum):
    """Why a devbox ends; ``devboxes`` turns it into what the api understands."""

    NOT_WANTED = auto()
    START_BROKEN_OFF = auto()
    SANDBOX_GONE = auto()
    OUT_OF_MEMORY = auto()
    NAMESPACE_LOST = auto()
    """Its sandbox runs in a network namespace that is not the one that is filtered."""
    RECORD_LOST = auto()
    ENTRYPOINT_EXIT = auto()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision about one devbox depends on."""

    desired: DevboxDocument | None
    record: DevboxRecord | None
    sandbox: ObservedSandbox | None
    is_filtered: bool
    """Link, chain and gate entry are confirmed by driver and gate, in this life of the agent."""
    is_linked: bool
    """Driver or gate may still have something of it."""
    is_namespace_own: bool = True
    """Its sandbox, if it runs, is in the namespace of its slot."""
    is_entrypoint_over: bool = False


@dataclass(frozen=True, slots=True)
class NextStep:
    """A step and, for ``END``, why."""

    step: Step
    reason: EndReason | None = None


def decide_next_step(facts: Facts) -> NextStep:
    """The one next step."""
    if facts.record is None:
        return _without_record(facts)
    match facts.record.stage:
        case Stage.ENDED:
            return _after_end(facts, facts.record)
        case Stage.ENDING:
            return _take_apart(facts)
        case Stage.PLACED | Stage.STARTING | Stage.RUNNING:
            return _alive(facts, facts.record)


def _without_record(facts: Facts) -> NextStep:
    if facts.desired is None:
        if facts.sandbox is not None:
            return NextStep(Step.CLEAR_SANDBOX)
        return NextStep(Step.UNFILTER if facts.is_linked else Step.NOTHING)
    if facts.desired.phase is DesiredPhase.SHUTDOWN:
        return NextStep(Step.END, EndReason.NOT_WANTED)
    if facts.sandbox is not None:
        return NextStep(Step.END, EndReason.RECORD_LOST)
    return NextStep(Step.PLACE)


def _after_end(facts: Facts, record: DevboxRecord) -> NextStep:
    if facts.desired is None:
        return NextStep(Step.FORGET)
    if facts.sandbox is not None or facts.is_linked:
        return _take_apart(facts)
    wants_boot = facts.desired.phase is DesiredPhase.RUNNING and facts.desired.generation > record.generation
    return NextStep(Step.PLACE if wants_boot else Step.NOTHING)


def _take_apart(facts: Facts) -> NextStep:
    if facts.sandbox is not None:
        return NextStep(Step.CLEAR_SANDBOX)
    if facts.is_linked:
        return NextStep(Step.UNFILTER)
    return NextStep(Step.FINISH)


def _alive(facts: Facts, record: DevboxRecord) -> NextStep:
    desired = facts.desired
    if desired is None or desired.phase is DesiredPhase.SHUTDOWN:
        return NextStep(Step.END, EndReason.NOT_WANTED)
    if desired.generation > record.generation:
        return NextStep(Step.REBOOT if facts.sandbox is None else Step.CLEAR_SANDBOX)
    match record.stage:
        case Stage.PLACED:
            return _placed(facts)
        case Stage.STARTING:
            return _broken_off(facts, record)
        case _:
            return _running(facts)


def _placed(facts: Facts) -> NextStep:
    if facts.sandbox is not None:
        return NextStep(Step.CLEAR_SANDBOX)
    return NextStep(Step.START if facts.is_filtered else Step.FILTER)


def _broken_off(facts: Facts, record: DevboxRecord) -> NextStep:
    """A start that nobody finishes: the agent died in it. Its launch commands may have half run, so begin anew."""
    if record.attempts >= START_ATTEMPTS_MAX:
        return NextStep(Step.END, EndReason.START_BROKEN_OFF)
    return NextStep(Step.RETRY if facts.sandbox is None else Step.CLEAR_SANDBOX)


def _running(facts: Facts) -> NextStep:
    sandbox = facts.sandbox
    if sandbox is None or sandbox.phase is SandboxPhase.EXITED:
        is_oom = sandbox is not None and sandbox.oom_kills > 0
        return NextStep(Step.END, EndReason.OUT_OF_MEMORY if is_oom else EndReason.SANDBOX_GONE)
    if not facts.is_namespace_own:
        return NextStep(Step.END, EndReason.NAMESPACE_LOST)
    if facts.is_entrypoint_over:
        return NextStep(Step.END, EndReason.ENTRYPOINT_EXIT)
    return NextStep(Step.NOTHING if facts.is_filtered else Step.FILTER)
