"""Answers of the blueprint routes."""

from typing import Any, Final

import msgspec

from outgate.control.blueprint_reading import BlueprintPage
from outgate.control.blueprint_states import BlueprintState, BlueprintStatus
from outgate.model.desired import BuildLine
from outgate.store.blueprints import BlueprintRow


class BlueprintView(msgspec.Struct, frozen=True):
    """A blueprint. ``parameters`` is what it was created with; times are Unix milliseconds."""

    id: str
    name: str
    state: BlueprintState
    status: BlueprintStatus
    create_time_ms: int
    build_finish_time_ms: int | None
    parameters: dict[str, Any]
    metadata: dict[str, str]
    base_blueprint_id: str | None
    failure_reason: str | None
    failure_detail: str | None
    """Why the build failed, in a sentence: an extension that clients ignore."""
    devbox_capabilities: tuple[str, ...]
    containerized_services: tuple[dict[str, Any], ...]
    is_public: bool


class BlueprintListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    blueprints: tuple[BlueprintView, ...]
    has_more: bool
    total_count: int | None


class BlueprintBuildLog(msgspec.Struct, frozen=True):
    """One line of a build's log."""

    level: str
    message: str
    timestamp_ms: int


class BlueprintBuildLogsListView(msgspec.Struct, frozen=True):
    """What the build has said so far, oldest first."""

    blueprint_id: str
    logs: tuple[BlueprintBuildLog, ...]


class BlueprintPreviewView(msgspec.Struct, frozen=True):
    """What would be built, as a Dockerfile."""

    dockerfile: str


_PARAMETERS: Final = msgspec.json.Decoder(dict[str, Any])
_METADATA: Final = msgspec.json.Decoder(dict[str, str])


def view_blueprint(row: BlueprintRow) -> BlueprintView:
    """The view of a blueprint."""
    return BlueprintView(
        id=row.id,
        name=row.name,
        state=BlueprintState.CREATED if row.delete_time_ms is None else BlueprintState.DELETED,
        status=BlueprintStatus(row.status),
        create_time_ms=row.create_time_ms,
        build_finish_time_ms=row.finish_time_ms,
        parameters=_PARAMETERS.decode(row.parameters),
        metadata=_METADATA.decode(row.metadata),
        base_blueprint_id=row.base_blueprint_id,
        failure_reason=row.failure_reason,
        failure_detail=row.detail or None,
        devbox_capabilities=(),
        containerized_services=(),
        is_public=False,
    )


def view_blueprints(page: BlueprintPage) -> BlueprintListView:
    """The view of a page."""
    return BlueprintListView(tuple(map(view_blueprint, page.blueprints)), page.has_more, page.total_count)


def view_build_log(blueprint_id: str, lines: tuple[BuildLine, ...]) -> BlueprintBuildLogsListView:
    """The view of a build's log."""
    logs = tuple(BlueprintBuildLog(line.level, line.message, line.time_ms) for line in lines)
    return BlueprintBuildLogsListView(blueprint_id, logs)
