"""Webhooks: made, read, changed, deleted and tried out. (What they are told is in ``webhook_events``.)"""

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.errors import ConflictError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim, claim_new, unless_deleted
from outgate.control.services import Services
from outgate.control.transactions import read_as, write_as
from outgate.control.wakeups import Subject, Topic
from outgate.control.webhook_bodies import encode_test
from outgate.control.webhook_input import WebhookInput, has_same_target, judge_webhook
from outgate.control.webhook_secrets import give_secret, open_secret
from outgate.errors import InvalidValueError
from outgate.model.webhooks import DeliveryState, WebhookEvent
from outgate.store.policies import lock_account
from outgate.store.sequence import read_seq
from outgate.store.webhook_deliveries import (
    DeliveryRow,
    count_pending,
    end_pending,
    find_delivery,
    forget_deliveries,
    insert_deliveries,
    list_deliveries,
)
from outgate.store.webhooks import (
    WebhookRow,
    count_webhooks,
    find_settled_number,
    find_webhook,
    find_webhook_locked,
    insert_webhook,
    list_webhooks,
    save_webhook,
)

WAKE: Final = Topic(Subject.WEBHOOKS, "")
TESTS_MAX: Final = 20
"""Deliveries that may wait for a webhook when a test is asked for."""
OVERLAP_S: Final = 24 * 3600
OVERLAP_S_MAX: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class WebhookPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    webhooks: tuple[WebhookRow, ...]
    has_more: bool
    total_count: int | None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries, newest first."""

    deliveries: tuple[DeliveryRow, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ShownWebhook:
    """A webhook with its secret, as it is shown to whoever just made or changed that."""

    row: WebhookRow
    secret: str


async def create_webhook(services: Services, call: Call, given: WebhookInput) -> ShownWebhook:
    """A new webhook, which hears of what happens from now on. Raises InvalidValueError (also at the limit)."""
    if given.url is None:
        raise InvalidValueError("A webhook needs a URL.", field="url", code="missing")
    if given.events is None:
        raise InvalidValueError("A webhook needs events to be told of.", field="events", code="missing")
    return await write_as(services, call.caller, lambda tx: _create(tx, services, call, given))


def _create(tx: Connection, services: Services, call: Call, given: WebhookInput) -> ShownWebhook:
    webhook_id = services.ids.make(IdPrefix.WEBHOOK, call.now_ms)
    known = claim_new(
        tx, call.request, webhook_id, call.now_ms, lambda made: unless_deleted(find_webhook(tx, call.account_id, made))
    )
    if known is not None:
        return ShownWebhook(known, open_secret(services, known))
    lock_account(tx, call.account_id)
    webhooks_max = services.settings.webhooks_max
    if count_webhooks(tx, call.account_id) >= webhooks_max:
        message = f"The account already has {webhooks_max} webhooks, the most it may have; delete one first."
        raise InvalidValueError(message, code="webhook_limit")
    row = WebhookRow(
        id=webhook_id,
        account_id=call.account_id,
        url="",
        description="",
        events="[]",
        policy_ids="[]",
        devbox_ids="[]",
        enabled=True,
        sealed=b"",
        old_sealed=None,
        old_until_ms=None,
        key_fingerprint="",
        flow_cursor=find_settled_number(tx),
        policy_cursor=read_seq(tx),
        told_warnings="[]",
        next_look_ms=call.now_ms,
        failing_since_ms=None,
        failures=0,
        problem="",
        lease="",
        lease_until_ms=0,
        create_time_ms=call.now_ms,
        update_time_ms=call.now_ms,
        delete_time_ms=None,
    )
    row = _with_columns(row, judge_webhook(tx, call.account_id, given, services.settings))
    row = give_secret(tx, services, row, overlap_until_ms=None)
    insert_webhook(tx, row)
    return ShownWebhook(row, open_secret(services, row))


async def update_webhook(services: Services, call: Call, webhook_id: str, given: WebhookInput) -> WebhookRow:
    """The webhook with the given fields in place of its own. Raises NotFoundError, InvalidValueError.

    One that is switched on again hears of what happens from now on; one that is switched off gives up what waits.
    """

    def change(tx: Connection) -> WebhookRow:
        row = _find_live_locked(tx, call, webhook_id)
        if claim(tx, call.request, row.id, call.now_ms) is not None:
            return row
        columns = judge_webhook(tx, call.account_id, given, services.settings)
        # The clock may step back between two updates; a webhook's own time does not.
        changed = replace(_with_columns(row, columns), update_time_ms=max(call.now_ms, row.update_time_ms))
        if row.enabled and not changed.enabled:
            end_pending(tx, row.id, now_ms=call.now_ms, error="the webhook was switched off")
            changed = replace(changed, problem="")
        if changed.enabled and not row.enabled:
            changed = replace(changed, flow_cursor=find_settled_number(tx), policy_cursor=read_seq(tx))
        if changed.enabled and not (row.enabled and has_same_target(row, columns)):
            changed = replace(changed, failing_since_ms=None, failures=0, problem="")
        save_webhook(tx, changed)
        return changed

    return await write_as(services, call.caller, change)


async def delete_webhook(services: Services, call: Call, webhook_id: str) -> WebhookRow:
    """What the webhook was last; its secret and what waited for it are gone. Raises NotFoundError.

    A try that is under way ends as it ends, and is not repeated.
    """

    def delete(tx: Connection) -> WebhookRow:
        row = find_webhook_locked(tx, call.account_id, webhook_id) if is_id(IdPrefix.WEBHOOK, webhook_id) else None
        if row is None:
            raise _not_found(webhook_id)
        repeated = claim(tx, call.request, row.id, call.now_ms)
        if row.delete_time_ms is not None:
            if repeated is not None:
                return row
            raise _not_found(webhook_id)
        forget_deliveries(tx, row.id)
        gone = replace(row, sealed=b"", old_sealed=None, key_fingerprint="", delete_time_ms=call.now_ms)
        save_webhook(tx, gone)
        return row

    return await write_as(services, call.caller, delete)


async def rotate_secret(services: Services, call: Call, webhook_id: str, *, overlap_s: int) -> ShownWebhook:
    """The webhook with a new secret; the old one signs, too, for ``overlap_s`` seconds. Raises NotFoundError."""

    def rotate(tx: Connection) -> ShownWebhook:
        row = _find_live_locked(tx, call, webhook_id)
        if claim(tx, call.request, row.id, call.now_ms) is None:
            until_ms = call.now_ms + overlap_s * 1000 if overlap_s else None
            row = give_secret(tx, services, row, overlap_until_ms=until_ms)
            save_webhook(tx, row)
        return ShownWebhook(row, open_secret(services, row))

    return await write_as(services, call.caller, rotate)


async def try_webhook(services: Services, call: Call, webhook_id: str) -> DeliveryRow:
    """A delivery that says nothing else, tried once and at once. Raises NotFoundError, ConflictError."""

    def add(tx: Connection) -> DeliveryRow:
        row = _find_live_locked(tx, call, webhook_id)
        delivery_id = services.ids.make(IdPrefix.DELIVERY, call.now_ms)
        known = claim_new(tx, call.request, delivery_id, call.now_ms, lambda made: find_delivery(tx, row.id, made))
        if known is not None:
            return known
        if not row.enabled:
            message = f"Webhook {row.id} is switched off; set enabled to true first."
            raise ConflictError(message, code="webhook_off")
        if count_pending(tx, row.id) >= TESTS_MAX:
            message = f"{TESTS_MAX} deliveries wait for webhook {row.id} already; see how they end first."
            raise ConflictError(message, code="webhook_busy")
        delivery = DeliveryRow(
            id=delivery_id,
            webhook_id=row.id,
            event=WebhookEvent.TEST.value,
            body=encode_test(row.id, call.now_ms),
            state=DeliveryState.PENDING.value,
            tries=0,
            create_time_ms=call.now_ms,
            next_try_ms=call.now_ms,
        )
        insert_deliveries(tx, [delivery])
        return delivery

    delivery = await write_as(services, call.caller, add)
    services.wakeups.notify(WAKE)
    return delivery


async def get_webhook(services: Services, caller: Caller, webhook_id: str) -> WebhookRow:
    """The caller's webhook. Raises NotFoundError."""
    return await read_as(services, caller, lambda tx: _find_live(tx, caller, webhook_id))


async def page_webhooks(
    services: Services, caller: Caller, *, before: str | None, limit: int, count_total: bool
) -> WebhookPage:
    """At most ``limit`` of the caller's webhooks, newest first, from after id ``before`` on."""

    def read(tx: Connection) -> WebhookPage:
        rows = list_webhooks(tx, caller.account_id, before=before, limit=limit + 1)
        total = count_webhooks(tx, caller.account_id) if count_total else None
        return WebhookPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


async def page_deliveries(
    services: Services, caller: Caller, webhook_id: str, *, before: str | None, limit: int
) -> DeliveryPage:
    """At most ``limit`` deliveries of a webhook, newest first, from after id ``before`` on. Raises NotFoundError."""

    def read(tx: Connection) -> DeliveryPage:
        row = _find_live(tx, caller, webhook_id)
        rows = list_deliveries(tx, row.id, before=before, limit=limit + 1)
        return DeliveryPage(tuple(rows[:limit]), len(rows) > limit)

    return await read_as(services, caller, read)


def _with_columns(row: WebhookRow, columns: dict[str, object]) -> WebhookRow:
    return replace(row, **columns)  # type: ignore[arg-type] # judge_webhook names columns of the row


def _find_live(tx: Connection, caller: Caller, webhook_id: str) -> WebhookRow:
    row = find_webhook(tx, caller.account_id, webhook_id) if is_id(IdPrefix.WEBHOOK, webhook_id) else None
    if row is None or row.delete_time_ms is not None:
        raise _not_found(webhook_id)
    return row


def _find_live_locked(tx: Connection, call: Call, webhook_id: str) -> WebhookRow:
    row = find_webhook_locked(tx, call.account_id, webhook_id) if is_id(IdPrefix.WEBHOOK, webhook_id) else None
    if row is None or row.delete_time_ms is not None:
        raise _not_found(webhook_id)
    return row


def _not_found(webhook_id: str) -> NotFoundError:
    shown = webhook_id if is_id(IdPrefix.WEBHOOK, webhook_id) else repr(webhook_id[:80])
    return NotFoundError(f"Webhook {shown} not found.", code="webhook_not_found")
