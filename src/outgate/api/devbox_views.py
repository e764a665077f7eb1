"""Answers of the devbox routes."""

from typing import Any, Final

import msgspec

from outgate.api.tunnel_views import TunnelView, view_tunnel
from outgate.control.devbox_reading import DevboxPage
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devbox_usage import DevboxUsage
from outgate.control.evictions import Eviction
from outgate.control.tunnel_input import decode_tunnel
from outgate.store.devboxes import DevboxRow


class StateTransition(msgspec.Struct, frozen=True):
    """When the devbox came to a status, and why if it failed."""

    status: DevboxStatus
    transition_time_ms: int
    failure_reason: str | None = None


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
    initiator_id: str
    blueprint_id: str | None
    snapshot_id: str | None
    tunnel: TunnelView | None
    gateway_specs: None
    mcp_specs: None
    """Null, as this server refuses devboxes with either."""


class DevboxListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    devboxes: tuple[DevboxView, ...]
    has_more: bool
    total_count: int | None


class DevboxResourceUsageView(msgspec.Struct, frozen=True):
    """What a devbox has used so far, in whole resource-seconds; times are Unix milliseconds."""

    id: str
    status: DevboxStatus
    start_time_ms: int
    end_time_ms: int | None
    total_elapsed_seconds: int
    total_active_seconds: int
    vcpu_seconds: int
    memory_gb_seconds: int
    disk_gb_seconds: int


class DevboxEvictionEventView(msgspec.Struct, frozen=True):
    """A devbox that will be ended or suspended, and when, Unix milliseconds."""

    devbox_id: str
    eviction_deadline_ms: int


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
        initiator_id=row.key_id,
        blueprint_id=row.blueprint_id,
        snapshot_id=row.snapshot_id,
        tunnel=None if row.tunnel is None else view_tunnel(decode_tunnel(row.tunnel)),
        gateway_specs=None,
        mcp_specs=None,
    )


def view_usage(usage: DevboxUsage) -> DevboxResourceUsageView:
    """The view of a devbox's use."""
    return DevboxResourceUsageView(
        id=usage.devbox_id,
        status=usage.status,
        start_time_ms=usage.start_time_ms,
        end_time_ms=usage.end_time_ms,
        total_elapsed_seconds=usage.elapsed_s,
        total_active_seconds=usage.active_s,
        vcpu_seconds=usage.vcpu_s,
        memory_gb_seconds=usage.memory_gib_s,
        disk_gb_seconds=usage.disk_gib_s,
    )


def view_eviction(eviction: Eviction) -> DevboxEvictionEventView:
    """The view of a pending end."""
    return DevboxEvictionEventView(eviction.devbox_id, eviction.deadline_ms)


def view_devboxes(page: DevboxPage) -> DevboxListView:
    """The view of a page."""
    return DevboxListView(tuple(view_devbox(row) for row in page.devboxes), page.has_more, page.total_count)
