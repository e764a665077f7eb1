"""How a devbox ended, in the api's words: the enums of the wire contract, and a sentence for a person."""

import errno
from enum import StrEnum
from typing import Final

from outgate.agent.reconcile import EndReason
from outgate.agent.record import Outcome
from outgate.errors import OutgateError
from outgate.model.desired import ObservedPhase
from outgate.runtime.base import EXIT_STATUS_KILLED, ObservedSandbox

_DETAIL_LENGTH_MAX: Final = 1000
_OUTPUT_LINES: Final = 5


class FailureReason(StrEnum):
    """Why a devbox failed, in the words of the API."""

    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    EXECUTION_FAILED = "execution_failed"
    HEALTH_CHECK_FAILED = "health_check_failed"


_LOST: Final = FailureReason.HEALTH_CHECK_FAILED
_FAILURES: Final = {
    EndReason.OUT_OF_MEMORY: (
        "The kernel ended it because it reached its memory limit.",
        FailureReason.OUT_OF_MEMORY,
    ),
    EndReason.ENTRYPOINT_OUT_OF_MEMORY: (
        "The kernel ended its entrypoint because it reached its memory limit.",
        FailureReason.OUT_OF_MEMORY,
    ),
    EndReason.SANDBOX_GONE: ("Its first process is gone.", _LOST),
    EndReason.NAMESPACE_LOST: ("Its network namespace was replaced, so it was ended.", _LOST),
    EndReason.RECORD_LOST: ("The host lost its record, so it was ended.", _LOST),
    EndReason.DISK_LOST: ("Its disk is gone from the host, so it was ended.", _LOST),
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


def failure(detail: str, now_ms: int, reason: FailureReason | None = None) -> Outcome:
    """A failure with ``detail`` as its sentence."""
    name = None if reason is None else reason.value
    return Outcome(ObservedPhase.FAILURE, now_ms, failure_reason=name, detail=detail[:_DETAIL_LENGTH_MAX])


def command_failure(
    what: str, exit_status: int | None, stderr: str, sandbox: ObservedSandbox | None, now_ms: int
) -> Outcome:
    """A command of the start (``what`` names it) ended badly; its last words are part of the detail.

    The kernel kills for want of memory by SIGKILL, and counts it; a disk that is full is so for everybody.
    """
    words = "\n".join(stderr.splitlines()[-_OUTPUT_LINES:])
    reason = FailureReason.EXECUTION_FAILED
    if sandbox is not None and exit_status == EXIT_STATUS_KILLED and sandbox.oom_kills > 0:
        reason = FailureReason.OUT_OF_MEMORY
    elif sandbox is not None and sandbox.is_disk_full:
        reason = FailureReason.OUT_OF_DISK
    return failure(f"{what} ended with status {exit_status}. {words}".strip(), now_ms, reason)


def start_failure(error: Exception, now_ms: int) -> Outcome:
    """The sandbox did not start: for want of room on the disk, when that is what the host said."""
    text = error.message if isinstance(error, OutgateError) else str(error)
    cause: BaseException | None = error
    while cause is not None:
        if is_disk_full_error(cause):
            return failure(f"The host's disk is full. {text}", now_ms, FailureReason.OUT_OF_DISK)
        cause = cause.__cause__
    return failure(f"Its sandbox did not start. {text}", now_ms)


def is_disk_full_error(error: BaseException) -> bool:
    """Whether the operating system had no room, or no more for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
