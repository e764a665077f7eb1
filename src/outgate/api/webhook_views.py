"""Answers of the webhook routes. Only the two that show a secret hold one."""

from enum import StrEnum

import msgspec

from outgate.control.webhook_input import decode_list
from outgate.control.webhooks import DeliveryPage, ShownWebhook, WebhookPage
from outgate.model.webhooks import DeliveryState, WebhookEvent
from outgate.store.webhook_deliveries import DeliveryRow
from outgate.store.webhooks import WebhookRow


class WebhookStatus(StrEnum):
    """How a webhook does."""

    OK = "ok"
    FAILING = "failing"
    """The last try failed; it is tried again."""
    OFF = "off"


class WebhookView(msgspec.Struct, frozen=True):
    """A webhook. Times are Unix milliseconds. ``problem`` says why it fails, or why it was switched off."""

    id: str
    url: str
    description: str
    events: tuple[str, ...]
    policy_ids: tuple[str, ...]
    devbox_ids: tuple[str, ...]
    enabled: bool
    status: WebhookStatus
    problem: str | None
    failing_since_ms: int | None
    create_time_ms: int
    update_time_ms: int


class WebhookSecretView(WebhookView, frozen=True):
    """A webhook with its secret. ``old_secret_until_ms``: how long the one before it signs, too."""

    secret: str
    old_secret_until_ms: int | None


class WebhookListView(msgspec.Struct, frozen=True):
    """One page, newest first."""

    webhooks: tuple[WebhookView, ...]
    has_more: bool
    total_count: int | None


class WebhookDeliveryView(msgspec.Struct, frozen=True):
    """One delivery and its last try. ``id`` is the webhook-id that receivers see, the same at each try."""

    id: str
    webhook_id: str
    event: WebhookEvent
    state: DeliveryState
    tries: int
    response_code: int | None
    error: str | None
    create_time_ms: int
    last_try_ms: int | None
    next_try_ms: int | None
    end_time_ms: int | None


class WebhookDeliveryListView(msgspec.Struct, frozen=True):
    """One page, newest first."""

    deliveries: tuple[WebhookDeliveryView, ...]
    has_more: bool


def view_webhook(row: WebhookRow) -> WebhookView:
    """The view of a webhook."""
    return WebhookView(
        id=row.id,
        url=row.url,
        description=row.description,
        events=decode_list(row.events),
        policy_ids=decode_list(row.policy_ids),
        devbox_ids=decode_list(row.devbox_ids),
        enabled=row.enabled,
        status=_find_status(row),
        problem=row.problem or None,
        failing_since_ms=row.failing_since_ms,
        create_time_ms=row.create_time_ms,
        update_time_ms=row.update_time_ms,
    )


def view_secret(shown: ShownWebhook) -> WebhookSecretView:
    """The view that shows the secret."""
    fields = msgspec.structs.asdict(view_webhook(shown.row))
    return WebhookSecretView(**fields, secret=shown.secret, old_secret_until_ms=shown.row.old_until_ms)


def view_webhooks(page: WebhookPage) -> WebhookListView:
    """The view of a page."""
    return WebhookListView(tuple(view_webhook(row) for row in page.webhooks), page.has_more, page.total_count)


def view_delivery(row: DeliveryRow) -> WebhookDeliveryView:
    """The view of a delivery."""
    state = DeliveryState(row.state)
    return WebhookDeliveryView(
        id=row.id,
        webhook_id=row.webhook_id,
        event=WebhookEvent(row.event),
        state=state,
        tries=row.tries,
        response_code=row.response_code,
        error=row.error or None,
        create_time_ms=row.create_time_ms,
        last_try_ms=row.last_try_ms,
        next_try_ms=row.next_try_ms if state is DeliveryState.PENDING else None,
        end_time_ms=row.end_time_ms,
    )


def view_deliveries(page: DeliveryPage) -> WebhookDeliveryListView:
    """The view of a page."""
    return WebhookDeliveryListView(tuple(view_delivery(row) for row in page.deliveries), page.has_more)


def _find_status(row: WebhookRow) -> WebhookStatus:
    if not row.enabled:
        return WebhookStatus.OFF
    return WebhookStatus.OK if row.failing_since_ms is None else WebhookStatus.FAILING
