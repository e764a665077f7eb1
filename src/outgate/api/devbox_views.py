"""Answers of the devbox routes."""

from typing import Any, Final

import msgspec

from outgate.control.devbox_reading import DevboxPage
from outgate.control.devbox_states import DevboxStatus
from outgate.store.devboxes import DevboxRow


class StateTransition(msgspec.Struct, frozen=True):
    """When the devbox came to a status."""

    status: DevboxStatus
    transition_time_ms: int


class DevboxView(msgspec.Struct, frozen=True):
    """A devbox. Times are Unix milliseconds; ``end_time_ms`` is null while it lives."""

    id: str
    name: str | None
    status: DevboxStatus
    create_time_ms: int
    end_time_ms: int | None
    launch_parameters: dict[str, Any]
    metadata: dict[str, str]
    state_transitions: tuple[StateTransition, ...]
    capabilities: tuple[str, ...]
    failure_reason: str | None
    failure_detail: str | None
    """Why it failed, in a sentence: an extension that clients ignore."""
    shutdown_reason: str | None
    initiator_type: str


class DevboxListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    devboxes: tuple[DevboxView, ...]
    has_more: bool
    total_count: int | None


class EmptyView(msgspec.Struct, frozen=True):
    """Nothing to say."""


_TRANSITIONS: Final = msgspec.json.Decoder(tuple[StateTransition, ...])
_METADATA: Final = msgspec.json.Decoder(dict[str, str])
_PARAMETERS: Final = msgspec.json.Decoder(dict[str, Any])


def view_devbox(row: DevboxRow) -> DevboxView:
    """The view of a devbox."""
    return DevboxView(
        id=row.id,
        name=row.name,
        status=DevboxStatus(row.status),
        create_time_ms=row.create_time_ms,
        end_time_ms=row.end_time_ms,
        launch_parameters=_PARAMETERS.decode(row.launch_parameters),
        metadata=_METADATA.decode(row.metadata),
        state_transitions=_TRANSITIONS.decode(row.transitions),
        capabilities=(),
        failure_reason=row.failure_reason,
        failure_detail=row.detail or None,
        shutdown_reason=row.shutdown_reason,
        initiator_type="api",
    )


def view_devboxes(page: DevboxPage) -> DevboxListView:
    """The view of a page."""
    return DevboxListView(tuple(view_devbox(row) for row in page.devboxes), page.has_more, page.total_count)
