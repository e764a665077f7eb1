"""What is to be done next about one devbox: a pure function of what is wanted and what is there.

The agent asks again after each step until the answer is ``NOTHING``, so a step may be broken off anywhere
(by SIGKILL too) and the next answer goes on from what is really there. Two rules hold in every row:

* ``START`` is answered only when links, chain and gate entry are confirmed (``is_filtered``);
* taking apart goes in reverse: first the processes, then the gate entry and the link, last the slot.

A suspended devbox is taken apart in the same way, but for its disk. Before it is resumed nothing of its former
network is left: it is filtered anew, by its policy as it is then. A disk that somebody has used is removed only
when the devbox ends.
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
    SUSPEND = auto()
    """Run the suspend commands."""
    HALT = auto()
    """End every process of it; the disk stays."""
    REST = auto()
    """Give its slot back: it is suspended."""
    CLEAR_SANDBOX = auto()
    """Stop whatever runs under its id and remove it, with its disk."""
    RETRY = auto()
    """Back to PLACED, to be started anew."""
    REBOOT = auto()
    """To PLACED in the wanted generation, with a slot."""
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
    DISK_LOST = auto()
    ENTRYPOINT_EXIT = auto()
    ENTRYPOINT_OUT_OF_MEMORY = auto()


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
    is_entrypoint_killed: bool = False
    """It ended by SIGKILL, as the kernel does it for want of memory."""


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
            return _after_end(facts)
        case Stage.ENDING:
            return _take_apart(facts)
        case _:
            return _alive(facts, facts.record)


def _without_record(facts: Facts) -> NextStep:
    if facts.desired is None:
        if facts.sandbox is not None:
            return NextStep(Step.CLEAR_SANDBOX)
        return NextStep(Step.UNFILTER if facts.is_linked else Step.NOTHING)
    if facts.desired.phase is DesiredPhase.SHUTDOWN:
        return NextStep(Step.END, EndReason.NOT_WANTED)
    was_used = facts.desired.phase is DesiredPhase.SUSPENDED or facts.desired.generation > 1
    if facts.sandbox is not None or was_used:
        return NextStep(Step.END, EndReason.RECORD_LOST)
    return NextStep(Step.PLACE)


def _after_end(facts: Facts) -> NextStep:
    if facts.desired is None:
        return NextStep(Step.FORGET)
    if facts.sandbox is not None or facts.is_linked:
        return _take_apart(facts)
    return NextStep(Step.NOTHING)


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
    if record.keeps_disk and facts.sandbox is None:
        return NextStep(Step.END, EndReason.DISK_LOST)
    if desired.phase is DesiredPhase.SUSPENDED:
        return _to_rest(facts, record)
    if desired.generation > record.generation:
        return _down(facts) or NextStep(Step.REBOOT)
    return _to_running(facts, record)


def _to_running(facts: Facts, record: DevboxRecord) -> NextStep:
    match record.stage:
        case Stage.PLACED:
            return _placed(facts, record)
        case Stage.STARTING:
            return _broken_off(facts, record)
        case Stage.RUNNING:
            return _running(facts)
        case _:  # at rest, or on its way there
            return _down(facts) or NextStep(Step.REBOOT)


def _to_rest(facts: Facts, record: DevboxRecord) -> NextStep:
    if record.stage is Stage.RUNNING and _is_running(facts.sandbox):
        return NextStep(Step.SUSPEND)
    step = _down(facts)
    if step is not None:
        return step
    return NextStep(Step.NOTHING if record.stage is Stage.SUSPENDED else Step.REST)


def _down(facts: Facts) -> NextStep | None:
    """What is still to be taken away before only the disk is left; None when that is so."""
    if _is_running(facts.sandbox):
        return NextStep(Step.HALT)
    return NextStep(Step.UNFILTER) if facts.is_linked else None


def _is_running(sandbox: ObservedSandbox | None) -> bool:
    return sandbox is not None and sandbox.phase is SandboxPhase.RUNNING


def _placed(facts: Facts, record: DevboxRecord) -> NextStep:
    leftover = _leftover(facts, record)
    if leftover is not None:
        return leftover
    return NextStep(Step.START if facts.is_filtered else Step.FILTER)


def _broken_off(facts: Facts, record: DevboxRecord) -> NextStep:
    """A start that nobody finishes: the agent died in it. Its launch commands may have half run, so begin anew."""
    if record.attempts >= START_ATTEMPTS_MAX:
        return NextStep(Step.END, EndReason.START_BROKEN_OFF)
    return _leftover(facts, record) or NextStep(Step.RETRY)


def _leftover(facts: Facts, record: DevboxRecord) -> NextStep | None:
    """What an earlier start left and must go first. None when nothing did, or only a disk that is kept."""
    if facts.sandbox is None:
        return None
    if not record.keeps_disk:
        return NextStep(Step.CLEAR_SANDBOX)
    return NextStep(Step.HALT) if _is_running(facts.sandbox) else None


def _running(facts: Facts) -> NextStep:
    sandbox = facts.sandbox
    if sandbox is None or sandbox.phase is SandboxPhase.EXITED:
        is_oom = sandbox is not None and sandbox.oom_kills > 0
        return NextStep(Step.END, EndReason.OUT_OF_MEMORY if is_oom else EndReason.SANDBOX_GONE)
    if not facts.is_namespace_own:
        return NextStep(Step.END, EndReason.NAMESPACE_LOST)
    if facts.is_entrypoint_over:
        is_oom = facts.is_entrypoint_killed and sandbox.oom_kills > 0
        return NextStep(Step.END, EndReason.ENTRYPOINT_OUT_OF_MEMORY if is_oom else EndReason.ENTRYPOINT_EXIT)
    return NextStep(Step.NOTHING if facts.is_filtered else Step.FILTER)
