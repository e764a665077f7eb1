"""How a devbox ended, in the api's words: the enums of the wire contract, and a sentence for a person."""

from typing import Final

from outgate.agent.reconcile import EndReason
from outgate.agent.record import Outcome
from outgate.model.desired import ObservedPhase

_DETAIL_LENGTH_MAX: Final = 1000
_OUTPUT_LINES: Final = 5


_FAILURES: Final = {
    EndReason.OUT_OF_MEMORY: ("The kernel ended it because it reached its memory limit.", "out_of_memory"),
    EndReason.SANDBOX_GONE: ("Its first process is gone.", "health_check_failed"),
    EndReason.NAMESPACE_LOST: ("Its network namespace was replaced, so it was ended.", "health_check_failed"),
    EndReason.RECORD_LOST: ("The host lost its record, so it was ended.", "health_check_failed"),
    EndReason.START_BROKEN_OFF: ("Its start was broken off too often.", None),
}


def outcome_of(reason: EndReason, now_ms: int) -> Outcome:
    """The outcome of an ending that reconciliation decided."""
    if reason is EndReason.NOT_WANTED:
        return Outcome(ObservedPhase.SHUTDOWN, now_ms)
    if reason is EndReason.ENTRYPOINT_EXIT:
        return Outcome(ObservedPhase.SHUTDOWN, now_ms, shutdown_reason="entrypoint_exit")
    detail, failure_reason = _FAILURES[reason]
    return failure(detail, now_ms, failure_reason)


def failure(detail: str, now_ms: int, failure_reason: str | None = None) -> Outcome:
    """A failure with ``detail`` as its sentence."""
    return Outcome(ObservedPhase.FAILURE, now_ms, failure_reason=failure_reason, detail=detail[:_DETAIL_LENGTH_MAX])


def launch_failure(command: str, exit_status: int | None, stderr: str, now_ms: int) -> Outcome:
    """A launch command ended badly; its last words are part of the detail."""
    words = "\n".join(stderr.splitlines()[-_OUTPUT_LINES:])
    return failure(f"Launch command {command!r} ended with status {exit_status}. {words}", now_ms, "execution_failed")
