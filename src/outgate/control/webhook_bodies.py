"""What is sent: ``{type, timestamp, data}``, as the Standard Webhooks specification recommends."""

from datetime import UTC, datetime

import msgspec

from outgate.control.flow_views import NetworkFlowView, view_flow
from outgate.model.webhooks import WebhookEvent
from outgate.store.webhook_news import FlowNews, PolicyNews


class _Flows(msgspec.Struct, frozen=True):
    webhook_id: str
    network_flows: tuple[NetworkFlowView, ...]
    omitted_count: int


class WarningNews(msgspec.Struct, frozen=True):
    """A host's warning that ``state`` says began or ended."""

    host: str
    code: str
    text: str
    state: str


class _Warnings(msgspec.Struct, frozen=True):
    webhook_id: str
    warnings: tuple[WarningNews, ...]


class _Policy(msgspec.Struct, frozen=True):
    id: str
    name: str
    revision: int
    update_time_ms: int
    is_deleted: bool
    key_id: str | None


class _Policies(msgspec.Struct, frozen=True):
    webhook_id: str
    network_policies: tuple[_Policy, ...]


class _Test(msgspec.Struct, frozen=True):
    webhook_id: str
    message: str


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: _Flows | _Warnings | _Policies | _Test


def encode_flows(event: WebhookEvent, webhook_id: str, news: FlowNews, now_ms: int) -> str:
    """The body that tells of decisions."""
    data = _Flows(webhook_id, tuple(view_flow(flow) for flow in news.flows), news.omitted_count)
    return _encode(event, data, now_ms)


def encode_warnings(webhook_id: str, news: tuple[WarningNews, ...], now_ms: int) -> str:
    """The body that tells of warnings."""
    return _encode(WebhookEvent.HOST_WARNING, _Warnings(webhook_id, news), now_ms)


def encode_policies(webhook_id: str, news: list[PolicyNews], now_ms: int) -> str:
    """The body that tells of policies."""
    told = tuple(_tell_policy(policy) for policy in news)
    return _encode(WebhookEvent.POLICY_UPDATED, _Policies(webhook_id, told), now_ms)


def encode_test(webhook_id: str, now_ms: int) -> str:
    """The body of a test."""
    data = _Test(webhook_id, "Somebody asked for this delivery to see whether it arrives.")
    return _encode(WebhookEvent.TEST, data, now_ms)


def _tell_policy(policy: PolicyNews) -> _Policy:
    is_deleted = policy.delete_time_ms is not None
    return _Policy(
        policy.id,
        policy.name,
        policy.revision,
        policy.update_time_ms if policy.delete_time_ms is None else policy.delete_time_ms,
        is_deleted,
        # Whose key deleted it is not kept.
        None if is_deleted else policy.key_id,
    )


def _encode(event: WebhookEvent, data: _Flows | _Warnings | _Policies | _Test, now_ms: int) -> str:
    moment = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode(_Envelope(event.value, moment.replace("+00:00", "Z"), data)).decode()
