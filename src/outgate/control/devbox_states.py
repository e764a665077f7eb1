"""Where a devbox is: pure steps from one stored row to the next."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec

from outgate.model.desired import DesiredPhase, DevboxDocument, ObservedDevbox, ObservedPhase
from outgate.store.devboxes import DevboxRow

TRANSITIONS_MAX: Final = 100
"""State changes kept of one devbox: the first is dropped when a box has lived through more."""


class DevboxStatus(StrEnum):
    """All states the wire knows. Outgate itself uses those that a devbox of its hosts can be in."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    FAILURE = "failure"
    SHUTDOWN = "shutdown"


class ShutdownReason(StrEnum):
    """Why the api ended a devbox."""

    API_SHUTDOWN = "api_shutdown"
    KEEP_ALIVE_TIMEOUT = "keep_alive_timeout"


@dataclass(frozen=True, slots=True)
class Step:
    """The next row. ``is_news``: its host must hear of it, so it needs a new place in the sequence."""

    row: DevboxRow
    is_news: bool


def decode_devbox(text: str) -> DevboxDocument:
    """A stored document."""
    return _DECODER.decode(text)


def encode_devbox(document: DevboxDocument) -> str:
    """``document`` as it is stored."""
    return msgspec.json.encode(document).decode()


_DECODER: Final = msgspec.json.Decoder(DevboxDocument)


def start_transitions(status: DevboxStatus, now_ms: int) -> str:
    """The history of a devbox that has just been asked for."""
    return json.dumps([_transition(status, now_ms)])


def end_by_request(row: DevboxRow, reason: ShutdownReason, now_ms: int) -> Step | None:
    """Ended by the api, at once; its host follows. None when it had ended already."""
    if row.end_time_ms is not None:
        return None
    return Step(_ended(row, DevboxStatus.SHUTDOWN, now_ms, shutdown_reason=reason.value), is_news=True)


def observe(row: DevboxRow, observed: ObservedDevbox, now_ms: int) -> Step | None:
    """What the host's word changes, or None. An ended devbox never comes back, whatever its host says."""
    if observed.generation != decode_devbox(row.document).generation:
        return None
    is_final = observed.phase in (ObservedPhase.SHUTDOWN, ObservedPhase.FAILURE)
    if row.end_time_ms is not None:
        if not is_final or row.released:
            return None
        return Step(replace(row, released=True), is_news=True)
    time_ms = min(observed.time_ms, now_ms)
    if not is_final:
        return _moved(row, DevboxStatus(observed.phase.value), time_ms)
    is_failure = observed.phase is ObservedPhase.FAILURE
    ended = _ended(
        row,
        DevboxStatus.FAILURE if is_failure else DevboxStatus.SHUTDOWN,
        time_ms,
        shutdown_reason=observed.shutdown_reason,
        failure_reason=observed.failure_reason,
    )
    # A devbox that failed still has to be cleared away by its host; one that is shut down has been.
    return Step(replace(ended, detail=observed.detail, released=not is_failure), is_news=True)


def _moved(row: DevboxRow, status: DevboxStatus, time_ms: int) -> Step | None:
    if row.status == status:
        return None
    return Step(replace(row, status=status.value, transitions=_appended(row, status, time_ms)), is_news=False)


def _ended(
    row: DevboxRow,
    status: DevboxStatus,
    time_ms: int,
    *,
    shutdown_reason: str | None = None,
    failure_reason: str | None = None,
) -> DevboxRow:
    document = msgspec.structs.replace(decode_devbox(row.document), phase=DesiredPhase.SHUTDOWN)
    return replace(
        row,
        status=status.value,
        transitions=_appended(row, status, time_ms),
        document=encode_devbox(document),
        shutdown_reason=shutdown_reason,
        failure_reason=failure_reason,
        end_time_ms=time_ms,
    )


def _appended(row: DevboxRow, status: DevboxStatus, time_ms: int) -> str:
    transitions = [*json.loads(row.transitions), _transition(status, time_ms)]
    return json.dumps(transitions[-TRANSITIONS_MAX:])


def _transition(status: DevboxStatus, time_ms: int) -> dict[str, object]:
    return {"status": status.value, "transition_time_ms": time_ms}
