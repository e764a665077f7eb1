"""Where a devbox is: pure steps from one stored row to the next.

What is asked for shows at once and reaches the host as desired state; what the host says is believed as far as
it fits what is asked for. Each boot has a generation of its own, and word of another generation is ignored: so
neither a late report nor a repeated one brings a devbox back.
"""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec

from outgate.control.texts import make_storable
from outgate.model.desired import DesiredPhase, DevboxDocument, ObservedDevbox, ObservedPhase
from outgate.store.devboxes import DevboxRow

TRANSITIONS_MAX: Final = 100
"""State changes kept of one devbox: the first is dropped when a box has lived through more."""


class DevboxStatus(StrEnum):
    """All states the wire knows. ``scheduled`` is a word of older clients that no devbox is ever in."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    """Stands in the history only: clients accept no other status than ``provisioning`` while a devbox resumes."""
    FAILURE = "failure"
    SHUTDOWN = "shutdown"


class ShutdownReason(StrEnum):
    """Why the api ended a devbox."""

    API_SHUTDOWN = "api_shutdown"
    KEEP_ALIVE_TIMEOUT = "keep_alive_timeout"
    IDLE = "idle"


class OnIdle(StrEnum):
    """What becomes of an idle devbox."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"


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
_FINAL: Final = frozenset({ObservedPhase.SHUTDOWN, ObservedPhase.FAILURE})
_BEFORE_RUNNING: Final = frozenset({ObservedPhase.PROVISIONING, ObservedPhase.INITIALIZING})
_FITTING: Final = {
    DesiredPhase.RUNNING: _BEFORE_RUNNING | {ObservedPhase.RUNNING},
    DesiredPhase.SUSPENDED: frozenset({ObservedPhase.SUSPENDED}),
    DesiredPhase.SHUTDOWN: frozenset[ObservedPhase](),
}
"""What a host may say on the way to what is wanted of it. (That it is suspending shows since it was asked to.)"""


def start_transitions(status: DevboxStatus, now_ms: int) -> str:
    """The history of a devbox that has just been asked for."""
    return json.dumps([_transition(status, now_ms)])


def lifetime_ms(row: DevboxRow) -> int:
    """How long the devbox lives from a sign of life on."""
    return (row.keep_alive_s if row.idle_s is None else row.idle_s) * 1000


def end_by_request(row: DevboxRow, reason: ShutdownReason, now_ms: int) -> Step | None:
    """Ended by the api, at once; its host follows. None when it had ended already."""
    if row.end_time_ms is not None:
        return None
    return Step(_ended(row, DevboxStatus.SHUTDOWN, now_ms, shutdown_reason=reason.value), is_news=True)


def suspend_by_request(row: DevboxRow, now_ms: int) -> Step | None:
    """On its way to being suspended. None unless it runs."""
    if row.status != DevboxStatus.RUNNING:
        return None
    document = msgspec.structs.replace(decode_devbox(row.document), phase=DesiredPhase.SUSPENDED)
    suspending = _moved(row, DevboxStatus.SUSPENDING, now_ms)
    return Step(replace(suspending, document=encode_devbox(document)), is_news=True)


def resume_by_request(row: DevboxRow, now_ms: int) -> Step | None:
    """On its way to running again, on the same disk and with all of its time. None unless it is suspended."""
    if row.status != DevboxStatus.SUSPENDED:
        return None
    before = decode_devbox(row.document)
    document = msgspec.structs.replace(before, phase=DesiredPhase.RUNNING, generation=before.generation + 1)
    resuming = replace(
        row,
        status=DevboxStatus.PROVISIONING.value,
        transitions=_appended(row, _transition(DevboxStatus.RESUMING, now_ms)),
        document=encode_devbox(document),
        expire_time_ms=now_ms + lifetime_ms(row),
    )
    return Step(resuming, is_news=True)


def observe(row: DevboxRow, observed: ObservedDevbox, now_ms: int) -> Step | None:
    """What the host's word changes, or None. An ended devbox never comes back, whatever its host says."""
    document = decode_devbox(row.document)
    if observed.generation != document.generation:
        return None
    is_final = observed.phase in _FINAL
    if row.end_time_ms is not None:
        if not is_final or row.released:
            return None
        return Step(replace(row, released=True), is_news=True)
    time_ms = min(observed.time_ms, now_ms)
    if not is_final:
        return _follow(row, document, observed.phase, time_ms)
    is_failure = observed.phase is ObservedPhase.FAILURE
    ended = _ended(
        row,
        DevboxStatus.FAILURE if is_failure else DevboxStatus.SHUTDOWN,
        time_ms,
        shutdown_reason=observed.shutdown_reason,
        failure_reason=observed.failure_reason,
    )
    # A devbox that failed still has to be cleared away by its host; one that is shut down has been.
    return Step(replace(ended, detail=make_storable(observed.detail), released=not is_failure), is_news=True)


def _follow(row: DevboxRow, document: DevboxDocument, phase: ObservedPhase, time_ms: int) -> Step | None:
    status = DevboxStatus(phase.value)
    if row.status == status or phase not in _FITTING[document.phase]:
        return None
    if document.generation > 1 and phase in _BEFORE_RUNNING:
        return None  # it resumes, which shows as provisioning throughout
    moved = _moved(row, status, time_ms)
    if status is DevboxStatus.RUNNING and row.idle_s is not None:
        # Nobody could use it before, so its idle time begins now.
        moved = replace(moved, expire_time_ms=time_ms + lifetime_ms(row))
    return Step(moved, is_news=False)


def _moved(row: DevboxRow, status: DevboxStatus, time_ms: int) -> DevboxRow:
    moved = replace(row, status=status.value, transitions=_appended(row, _transition(status, time_ms)))
    return _with_use(moved, is_used=status in (DevboxStatus.RUNNING, DevboxStatus.SUSPENDING), time_ms=time_ms)


def _with_use(row: DevboxRow, *, is_used: bool, time_ms: int) -> DevboxRow:
    """``row`` with its time as running counted up to now, and going on or not."""
    if is_used == (row.run_since_ms is not None):
        return row
    if row.run_since_ms is None:
        return replace(row, run_since_ms=time_ms)
    return replace(row, run_ms=row.run_ms + max(0, time_ms - row.run_since_ms), run_since_ms=None)


def _ended(
    row: DevboxRow,
    status: DevboxStatus,
    time_ms: int,
    *,
    shutdown_reason: str | None = None,
    failure_reason: str | None = None,
) -> DevboxRow:
    document = msgspec.structs.replace(decode_devbox(row.document), phase=DesiredPhase.SHUTDOWN)
    ended = replace(
        row,
        status=status.value,
        transitions=_appended(row, _transition(status, time_ms, failure_reason)),
        document=encode_devbox(document),
        shutdown_reason=shutdown_reason,
        failure_reason=failure_reason,
        end_time_ms=time_ms,
    )
    return _with_use(ended, is_used=False, time_ms=time_ms)


def _appended(row: DevboxRow, transition: dict[str, object]) -> str:
    return json.dumps([*json.loads(row.transitions), transition][-TRANSITIONS_MAX:])


def _transition(status: DevboxStatus, time_ms: int, failure_reason: str | None = None) -> dict[str, object]:
    why = {} if failure_reason is None else {"failure_reason": failure_reason}
    return {"status": status.value, "transition_time_ms": time_ms, **why}
