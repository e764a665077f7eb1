"""What a try of a delivery means: it is done, it is tried again later, it is given up, its webhook is switched off."""

import random
from dataclasses import dataclass, replace
from typing import Final

import structlog
from sqlalchemy import Connection

from outgate.control.services import Services
from outgate.control.webhook_schedule import is_over, plan_retry
from outgate.model.webhooks import DeliveryState, WebhookEvent
from outgate.store.webhook_deliveries import (
    DeliveryRow,
    end_pending,
    keep_newest,
    release_webhook,
    settle_delivery,
)
from outgate.store.webhooks import WebhookRow, find_webhook_locked, save_webhook

KEPT_PER_WEBHOOK_MAX: Final = 100
"""Deliveries that ended and can be looked at."""
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery to be tried, with its webhook as it was then, which is leased under ``lease``."""

    webhook: WebhookRow
    delivery: DeliveryRow
    lease: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a try: the receiver's ``status``, or None and an ``error``."""

    status: int | None
    error: str
    retry_after_ms: int | None = None

    @property
    def is_success(self) -> bool:
        """Only 2xx means that the receiver has it (Standard Webhooks)."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def problem(self) -> str:
        """Why it is none, in a few words."""
        if self.status is None:
            return self.error
        if 300 <= self.status < 400:
            return f"answered {self.status}: redirects are not followed; give the URL where it leads"
        return f"answered {self.status}"


@dataclass(frozen=True, slots=True)
class _Settled:
    delivery: DeliveryRow
    is_switched_off: bool
    given_up: int


async def settle_try(services: Services, claimed: Claimed, outcome: Outcome, now_ms: int) -> None:
    """Store what came of the try and give the webhook's lease back."""
    webhook, lease = claimed.webhook, claimed.lease
    tried = judge_try(claimed.delivery, outcome, now_ms=now_ms, chance=random.random())  # noqa: S311 - no secret

    def settle(tx: Connection) -> _Settled | None:
        # The webhook first, as whoever changes or deletes it does, so that no two wait for each other.
        row = find_webhook_locked(tx, webhook.account_id, webhook.id)
        release_webhook(tx, webhook.id, lease=lease)
        if row is None or row.delete_time_ms is not None or not settle_delivery(tx, tried):
            return None
        if row.lease == lease:
            row = replace(row, lease="", lease_until_ms=0)
        # A test says nothing about the others; nor does a try at the URL that was given before.
        is_evidence = tried.event != WebhookEvent.TEST and row.url == webhook.url
        return _note_health(tx, row, tried, outcome, now_ms, is_evidence=is_evidence)

    settled = await services.database.write(settle)
    if settled is not None:
        _count(services, webhook, settled)


def judge_try(delivery: DeliveryRow, outcome: Outcome, *, now_ms: int, chance: float) -> DeliveryRow:
    """The delivery after a try: delivered, to be tried again, or given up. Tests are tried once."""
    tried = replace(delivery, tries=delivery.tries + 1, last_try_ms=now_ms, response_code=outcome.status)
    if outcome.is_success:
        return replace(tried, state=DeliveryState.DELIVERED.value, end_time_ms=now_ms, error="")
    tried = replace(tried, error=outcome.problem)
    next_ms = None
    if delivery.event != WebhookEvent.TEST:
        next_ms = plan_retry(
            tried.tries,
            create_time_ms=delivery.create_time_ms,
            now_ms=now_ms,
            chance=chance,
            retry_after_ms=outcome.retry_after_ms,
        )
    if next_ms is None:
        return replace(tried, state=DeliveryState.FAILED.value, end_time_ms=now_ms)
    return replace(tried, next_try_ms=next_ms)


def _note_health(
    tx: Connection, row: WebhookRow, tried: DeliveryRow, outcome: Outcome, now_ms: int, *, is_evidence: bool
) -> _Settled:
    """Store how the webhook does; it is switched off when it has failed for too long."""
    given_up = 0
    if outcome.is_success:
        changed = replace(row, failing_since_ms=None, failures=0, problem="")
    elif not is_evidence:
        changed = row
    else:
        since_ms = row.failing_since_ms if row.failing_since_ms is not None else now_ms
        changed = replace(row, failing_since_ms=since_ms, failures=row.failures + 1, problem=outcome.problem)
        if row.enabled and is_over(
            failing_since_ms=since_ms, failures=changed.failures, status=outcome.status, now_ms=now_ms
        ):
            changed = replace(changed, enabled=False, problem=_say_switched_off(outcome))
            given_up = end_pending(tx, row.id, now_ms=now_ms, error="the webhook was switched off")
    save_webhook(tx, changed)
    if tried.end_time_ms is not None or given_up:
        keep_newest(tx, row.id, keep_max=KEPT_PER_WEBHOOK_MAX)
    return _Settled(tried, row.enabled and not changed.enabled, given_up)


def _say_switched_off(outcome: Outcome) -> str:
    why = "its receiver does not want it any more" if outcome.status == 410 else "it failed for three days"
    return f"Switched off: {why} ({outcome.problem}). Set enabled to true when it works again."


def _count(services: Services, webhook: WebhookRow, settled: _Settled) -> None:
    counters, tried = services.webhooks, settled.delivery
    match tried.state:
        case DeliveryState.DELIVERED:
            counters.delivered += 1
        case DeliveryState.FAILED:
            counters.failed += 1
        case _ if not settled.is_switched_off:
            counters.retries += 1
    counters.failed += settled.given_up
    if settled.is_switched_off:
        counters.switched_off += 1
        # Neither its URL, which may hold a token of the receiver's, nor what it was told.
        _log.warning("webhook switched off", webhook_id=webhook.id, account_id=webhook.account_id)
