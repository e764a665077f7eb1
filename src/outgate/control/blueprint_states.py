"""Where a blueprint is: pure steps from one stored row to the next."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec

from outgate.control.devbox_states import decode_devbox, encode_devbox
from outgate.control.texts import make_storable
from outgate.model.desired import BUILD_COMPLETE, BuildDocument, DesiredPhase, ObservedDevbox, ObservedPhase
from outgate.store.blueprints import BlueprintRow


class BlueprintStatus(StrEnum):
    """All statuses of the wire. No build of Outgate's awaits an upload."""

    QUEUED = "queued"
    PROVISIONING = "provisioning"
    BUILDING = "building"
    AWAITING_UPLOAD = "awaiting_upload"
    FAILED = "failed"
    BUILD_COMPLETE = "build_complete"


class BlueprintState(StrEnum):
    """Whether a blueprint is there."""

    CREATED = "created"
    DELETED = "deleted"


class BuildFailure(StrEnum):
    """Why a build failed, in the words of the API."""

    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    BUILD_FAILED = "build_failed"


@dataclass(frozen=True, slots=True)
class BlueprintStep:
    """The next row. ``is_news``: its host must hear of it, so it needs a new place in the sequence."""

    row: BlueprintRow
    is_news: bool


_STATUSES: Final = {
    ObservedPhase.PROVISIONING: BlueprintStatus.PROVISIONING,
    ObservedPhase.INITIALIZING: BlueprintStatus.BUILDING,
}
_FINAL: Final = (ObservedPhase.SHUTDOWN, ObservedPhase.FAILURE)


def is_running(row: BlueprintRow) -> bool:
    """Whether its build has not ended."""
    return row.finish_time_ms is None


def observe_build(row: BlueprintRow, observed: ObservedDevbox, now_ms: int) -> BlueprintStep | None:
    """What the host's word changes, or None. A build that ended never comes back, whatever its host says."""
    if not is_running(row):
        if observed.phase not in _FINAL or row.released or row.status == BlueprintStatus.BUILD_COMPLETE:
            return None
        return BlueprintStep(replace(row, released=True), is_news=True)
    time_ms = min(observed.time_ms, now_ms)
    if observed.phase in _FINAL:
        return _end(row, observed, time_ms)
    status = _STATUSES.get(observed.phase)
    if status is None or status == row.status:
        return None
    return BlueprintStep(replace(row, status=status.value), is_news=False)


def _end(row: BlueprintRow, observed: ObservedDevbox, time_ms: int) -> BlueprintStep:
    if observed.phase is ObservedPhase.FAILURE:
        return fail_build(row, observed.detail, time_ms, _parse_failure(observed.failure_reason))
    if observed.shutdown_reason != BUILD_COMPLETE:
        return fail_build(row, "Its host ended the build.", time_ms)
    complete = replace(
        row,
        status=BlueprintStatus.BUILD_COMPLETE.value,
        document=_without_work(row),
        finish_time_ms=time_ms,
    )
    # Its host keeps its record, and the image, until the blueprint is deleted.
    return BlueprintStep(complete, is_news=False)


def _parse_failure(reason: str | None) -> BuildFailure:
    known = {failure.value: failure for failure in BuildFailure}
    return known.get(reason or "", BuildFailure.BUILD_FAILED)


def fail_build(
    row: BlueprintRow, detail: str, now_ms: int, reason: BuildFailure = BuildFailure.BUILD_FAILED
) -> BlueprintStep:
    """A running build ended badly, or is to be ended; its host clears it away."""
    failed = replace(
        row,
        status=BlueprintStatus.FAILED.value,
        failure_reason=reason.value,
        detail=make_storable(detail),
        document=_without_work(row),
        finish_time_ms=now_ms,
    )
    return BlueprintStep(failed, is_news=True)


def delete_blueprint_row(row: BlueprintRow, now_ms: int) -> BlueprintRow:
    """Deleted; a build that runs is cancelled. Its host is to hear of it."""
    if is_running(row):
        cancelled = fail_build(row, "The blueprint was deleted while it was built.", now_ms).row
        return replace(cancelled, delete_time_ms=now_ms)
    return replace(row, delete_time_ms=now_ms, released=True)


def _without_work(row: BlueprintRow) -> str:
    """The document of a build that is over: nothing of it is to run, and what it was given is not kept twice."""
    document = decode_devbox(row.document)
    return encode_devbox(
        msgspec.structs.replace(document, phase=DesiredPhase.SHUTDOWN, build=BuildDocument(), mounts=(), secrets={})
    )
