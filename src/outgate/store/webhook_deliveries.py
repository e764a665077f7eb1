"""The outbox of webhooks: what is to be delivered, by whom just now, and what became of it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from outgate.store.webhook_tables import webhook_deliveries as deliveries
from outgate.store.webhook_tables import webhooks


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One delivery. ``body`` is what is sent, the same at each try; ``state`` as in DeliveryState."""

    id: str
    webhook_id: str
    event: str
    body: str
    state: str
    tries: int
    create_time_ms: int
    next_try_ms: int
    last_try_ms: int | None = None
    end_time_ms: int | None = None
    response_code: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A webhook for which a delivery is due, and that nobody serves."""

    id: str
    account_id: str


_FIELDS: Final = tuple(DeliveryRow.__dataclass_fields__)
_ROW: Final = select(*(deliveries.c[name] for name in _FIELDS))
_PENDING: Final = deliveries.c.state == "pending"
_FIRST_DUE: Final = (
    _ROW.where(
        deliveries.c.webhook_id == bindparam("webhook_id"), _PENDING, deliveries.c.next_try_ms <= bindparam("now_ms")
    )
    .order_by(deliveries.c.next_try_ms, deliveries.c.id)
    .limit(1)
)
_SERVED: Final = (webhooks.c.delete_time_ms.is_(None), webhooks.c.enabled)
_LEASE: Final = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("webhook_id"), *_SERVED, webhooks.c.lease_until_ms <= bindparam("now_ms"))
    .values(lease=bindparam("new_lease"), lease_until_ms=bindparam("until_ms"))
)
_RELEASE: Final = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("webhook_id"), webhooks.c.lease == bindparam("old_lease"))
    .values(lease="", lease_until_ms=0)
)
_SETTLE: Final = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery_id"), _PENDING)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "tries", "next_try_ms", "last_try_ms", "end_time_ms", "response_code", "error")
        }
    )
)


def insert_deliveries(connection: Connection, rows: Collection[DeliveryRow]) -> None:
    """Put these into the outbox."""
    if rows:
        connection.execute(insert(deliveries), [{name: getattr(row, name) for name in _FIELDS} for row in rows])


def find_delivery(connection: Connection, webhook_id: str, delivery_id: str) -> DeliveryRow | None:
    """The webhook's delivery of that id, unless it was forgotten."""
    query = _ROW.where(deliveries.c.webhook_id == webhook_id, deliveries.c.id == delivery_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _row(row)


def list_deliveries(connection: Connection, webhook_id: str, *, before: str | None, limit: int) -> list[DeliveryRow]:
    """At most ``limit`` of the webhook's deliveries, newest first, from before id ``before`` on."""
    query = _ROW.where(deliveries.c.webhook_id == webhook_id).order_by(deliveries.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(deliveries.c.id < before)
    return [_row(row) for row in connection.execute(query)]


def count_pending(connection: Connection, webhook_id: str | None = None) -> int:
    """How many deliveries wait, for one webhook or for all."""
    query = select(func.count()).select_from(deliveries).where(_PENDING)
    if webhook_id is not None:
        query = query.where(deliveries.c.webhook_id == webhook_id)
    count: int = connection.execute(query).scalar_one()
    return count


def list_due_webhooks(
    connection: Connection, *, now_ms: int, busy_accounts: Collection[str], limit: int
) -> list[DueWebhook]:
    """Webhooks to be served, those that wait longest first; none of ``busy_accounts``."""
    first_ms = func.min(deliveries.c.next_try_ms)
    query = (
        select(webhooks.c.id, webhooks.c.account_id)
        .join(deliveries, deliveries.c.webhook_id == webhooks.c.id)
        .where(_PENDING, deliveries.c.next_try_ms <= now_ms, *_SERVED, webhooks.c.lease_until_ms <= now_ms)
        .group_by(webhooks.c.id, webhooks.c.account_id)
        .order_by(first_ms, webhooks.c.id)
        .limit(limit)
    )
    if busy_accounts:
        query = query.where(webhooks.c.account_id.not_in(sorted(busy_accounts)))
    return [DueWebhook(row.id, row.account_id) for row in connection.execute(query)]


def lease_delivery(
    connection: Connection, webhook_id: str, *, lease: str, now_ms: int, until_ms: int
) -> DeliveryRow | None:
    """The webhook's first due delivery, with the webhook leased: until ``until_ms`` nobody else serves it.

    None when it has nothing to deliver any more, or somebody else serves it.
    """
    values = {"webhook_id": webhook_id, "now_ms": now_ms, "new_lease": lease, "until_ms": until_ms}
    if connection.execute(_LEASE, values).rowcount == 0:
        return None
    # A statement of its own: with the lease in hand nobody else settles any of the webhook's deliveries.
    row = connection.execute(_FIRST_DUE, {"webhook_id": webhook_id, "now_ms": now_ms}).one_or_none()
    if row is None:
        release_webhook(connection, webhook_id, lease=lease)
        return None
    return _row(row)


def release_webhook(connection: Connection, webhook_id: str, *, lease: str) -> None:
    """Give the lease back, if it still is the one."""
    connection.execute(_RELEASE, {"webhook_id": webhook_id, "old_lease": lease})


def release_all(connection: Connection) -> None:
    """Take all leases back: for the one process that uses a store, after whose end before they mean nothing."""
    connection.execute(update(webhooks).where(webhooks.c.lease != "").values(lease="", lease_until_ms=0))


def settle_delivery(connection: Connection, row: DeliveryRow) -> bool:
    """Store what became of a try; False when the delivery was ended or forgotten meanwhile."""
    names = ("state", "tries", "next_try_ms", "last_try_ms", "end_time_ms", "response_code", "error")
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in names}
    return connection.execute(_SETTLE, values | {"delivery_id": row.id}).rowcount == 1


def end_pending(connection: Connection, webhook_id: str, *, now_ms: int, error: str) -> int:
    """Give up everything that waits for the webhook; how much that was."""
    query = update(deliveries).where(deliveries.c.webhook_id == webhook_id, _PENDING)
    return connection.execute(query.values(state="failed", end_time_ms=now_ms, error=error)).rowcount


def forget_deliveries(connection: Connection, webhook_id: str) -> None:
    """Forget all of a webhook's deliveries."""
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))


def keep_newest(connection: Connection, webhook_id: str, *, keep_max: int) -> None:
    """Forget the webhook's oldest ended deliveries, so that at most ``keep_max`` stay."""
    ended = (deliveries.c.webhook_id == webhook_id, deliveries.c.end_time_ms.is_not(None))
    last = select(deliveries.c.id).where(*ended).order_by(deliveries.c.id.desc()).offset(keep_max).limit(1)
    connection.execute(delete(deliveries).where(*ended, deliveries.c.id <= last.scalar_subquery()))


def forget_old_deliveries(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Forget at most ``limit`` deliveries that ended before; how many they were."""
    oldest = select(deliveries.c.id).where(deliveries.c.end_time_ms < before_ms).limit(limit)
    return connection.execute(delete(deliveries).where(deliveries.c.id.in_(oldest))).rowcount


def _row(row: Any) -> DeliveryRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return DeliveryRow(*row)
