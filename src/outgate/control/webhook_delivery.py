"""The outbox out: each delivery is tried until it is answered with 2xx, given up, or its webhook goes.

At least once: what became of a try is stored after it, so a crash in between repeats it, under the same webhook-id. A
webhook is leased for a try, in the store, so of several api processes one serves it at a time; a slow endpoint holds
its own lease and one of a bounded number of places, of which no account has more than a few.
"""

import asyncio
import secrets
from collections import Counter
from typing import Final

import structlog
from sqlalchemy import Connection

from outgate import __version__
from outgate.client.webhook_post import NotDeliveredError, WebhookPoster
from outgate.clock import monotonic_s, wall_ms
from outgate.control.errors import StoppingError
from outgate.control.secret_values import SealedValueError
from outgate.control.services import Services
from outgate.control.wakeups import Watch
from outgate.control.webhook_events import NewsRounds
from outgate.control.webhook_outcome import Claimed, Outcome, settle_try
from outgate.control.webhook_schedule import parse_retry_after
from outgate.control.webhook_secrets import sign_delivery
from outgate.control.webhooks import WAKE
from outgate.errors import InvalidValueError
from outgate.model.webhooks import parse_webhook_url
from outgate.store.errors import StoreError
from outgate.store.webhook_deliveries import (
    count_pending,
    forget_old_deliveries,
    lease_delivery,
    list_due_webhooks,
    release_all,
)
from outgate.store.webhooks import find_webhook, forget_deleted_webhooks

LOOK_EVERY_S: Final = 1.0
TRIES_MAX: Final = 32
"""Tries under way at once, and those of one account: nobody's silent endpoints take the places of all others."""
ACCOUNT_TRIES_MAX: Final = 4
LEASE_MS: Final = 30_000
"""Three times as long as a try may take."""
SETTLED_S: Final = 30.0
"""After so long each host's tunnel front has found an api that was restarted."""
KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long deliveries that ended can be looked at, and webhooks that were deleted be repeated as deleted."""
_FORGOTTEN_BATCH: Final = 500

_log: Final = structlog.get_logger(__name__)


async def deliver_forever(services: Services) -> None:
    """Make deliveries and deliver them until cancelled. A store that fails is tried again at the next turn."""
    poster = WebhookPoster(services.settings.webhook_networks)
    rounds, began_s = NewsRounds(services), monotonic_s()
    is_fresh = not services.database.is_shared
    with services.wakeups.watch(WAKE) as watch:
        deliverer = Deliverer(services, poster, watch)
        try:
            while True:
                try:
                    if is_fresh:
                        await services.database.write(release_all)
                        is_fresh = False
                    await rounds.gather(wall_ms(), is_settled=monotonic_s() - began_s >= SETTLED_S)
                    await deliverer.start_due(wall_ms())
                except StoreError as error:
                    _log.warning("webhooks wait for the store", error=error.message)
                await watch.wait(LOOK_EVERY_S)
        except StoppingError:
            return
        finally:
            await deliverer.stop()


class Deliverer:
    """The tries that are under way in this process."""

    def __init__(self, services: Services, poster: WebhookPoster, watch: Watch) -> None:
        self._services = services
        self._poster = poster
        self._watch = watch
        self._tries: set[asyncio.Task[None]] = set()
        self._by_account: Counter[str] = Counter()

    async def start_due(self, now_ms: int) -> int:
        """Begin as many tries that are due as there are places; how many."""
        services = self._services
        services.webhooks.pending = await services.database.read(count_pending)
        room = TRIES_MAX - len(self._tries)
        if not services.webhooks.pending or room <= 0:
            return 0
        busy = [account_id for account_id, tries in self._by_account.items() if tries >= ACCOUNT_TRIES_MAX]
        due = await services.database.read(
            lambda tx: list_due_webhooks(tx, now_ms=now_ms, busy_accounts=busy, limit=TRIES_MAX * ACCOUNT_TRIES_MAX)
        )
        begun = 0
        for webhook in due:
            if begun == room or self._by_account[webhook.account_id] >= ACCOUNT_TRIES_MAX:
                continue
            claimed = await claim_delivery(services, webhook.account_id, webhook.id, now_ms)
            if claimed is not None:
                self._start(claimed)
                begun += 1
        return begun

    async def stop(self) -> None:
        """End the tries that are under way; their deliveries will be tried again."""
        for task in self._tries:
            task.cancel()
        await asyncio.gather(*self._tries, return_exceptions=True)

    def _start(self, claimed: Claimed) -> None:
        account_id = claimed.webhook.account_id
        task = asyncio.create_task(self._try(claimed))
        self._tries.add(task)
        self._by_account[account_id] += 1

        def end(task: asyncio.Task[None]) -> None:
            self._tries.discard(task)
            self._by_account[account_id] -= 1
            if not self._by_account[account_id]:
                del self._by_account[account_id]
            # There may be more for this webhook, and there is room.
            self._watch.wake()

        task.add_done_callback(end)

    async def _try(self, claimed: Claimed) -> None:
        outcome = await try_delivery(self._services, self._poster, claimed)
        try:
            await settle_try(self._services, claimed, outcome, wall_ms())
        except StoreError as error:
            # The lease ends by itself, and the delivery is tried again: once more than needed.
            _log.warning("delivery not noted", delivery_id=claimed.delivery.id, error=error.message)


async def claim_delivery(services: Services, account_id: str, webhook_id: str, now_ms: int) -> Claimed | None:
    """The webhook's first due delivery, which nobody else tries for the time of a lease; None when there is none."""
    lease = secrets.token_hex(8)

    def claim(tx: Connection) -> Claimed | None:
        delivery = lease_delivery(tx, webhook_id, lease=lease, now_ms=now_ms, until_ms=now_ms + LEASE_MS)
        webhook = None if delivery is None else find_webhook(tx, account_id, webhook_id)
        return None if delivery is None or webhook is None else Claimed(webhook, delivery, lease)

    return await services.database.write(claim)


async def try_delivery(services: Services, poster: WebhookPoster, claimed: Claimed) -> Outcome:
    """What came of one try."""
    now_ms = wall_ms()
    webhook, delivery = claimed.webhook, claimed.delivery
    try:
        headers = sign_delivery(services, webhook, delivery.id, delivery.body, now_ms)
        answer = await poster.post(
            parse_webhook_url(webhook.url),
            {**headers, "content-type": "application/json", "user-agent": f"outgate/{__version__}"},
            delivery.body.encode(),
        )
    except (NotDeliveredError, SealedValueError, InvalidValueError) as error:
        return Outcome(None, error.message)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's server provokes ends this try, not the api
        _log.error("delivery failed", delivery_id=delivery.id, webhook_id=webhook.id, error=type(error).__name__)
        return Outcome(None, f"the answer could not be read ({type(error).__name__})")
    return Outcome(answer.status, "", parse_retry_after(answer.retry_after, now_ms=wall_ms()))


async def forget_old_webhooks(services: Services, now_ms: int) -> int:
    """Forget one batch of what ended, or was deleted, long ago; how many they were."""

    def forget(tx: Connection) -> int:
        before_ms = now_ms - KEPT_MS
        return forget_old_deliveries(tx, before_ms=before_ms, limit=_FORGOTTEN_BATCH) + forget_deleted_webhooks(
            tx, before_ms=before_ms, limit=_FORGOTTEN_BATCH
        )

    return await services.database.write(forget)
