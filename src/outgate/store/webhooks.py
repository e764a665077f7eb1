"""Webhooks: where an account wants its events, and how delivering there goes."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update

from outgate.store.flows import find_last_number
from outgate.store.webhook_tables import webhook_deliveries, webhooks


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """One webhook. ``events``, ``policy_ids`` and ``devbox_ids`` are JSON lists; see the table for the rest."""

    id: str
    account_id: str
    url: str
    description: str
    events: str
    policy_ids: str
    devbox_ids: str
    enabled: bool
    sealed: bytes
    old_sealed: bytes | None
    old_until_ms: int | None
    key_fingerprint: str
    flow_cursor: int
    policy_cursor: int
    told_warnings: str
    next_look_ms: int
    failing_since_ms: int | None
    failures: int
    problem: str
    lease: str
    lease_until_ms: int
    create_time_ms: int
    update_time_ms: int
    delete_time_ms: int | None


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a look at the news went."""

    flow_cursor: int
    policy_cursor: int
    told_warnings: str


_FIELDS: Final = tuple(WebhookRow.__dataclass_fields__)
_ROW: Final = select(*(webhooks.c[name] for name in _FIELDS))
_OWN: Final = _ROW.where(webhooks.c.account_id == bindparam("account_id"))
_BY_ID: Final = _OWN.where(webhooks.c.id == bindparam("id"))
_LIVE: Final = webhooks.c.delete_time_ms.is_(None)
_COUNT: Final = (
    select(func.count()).select_from(webhooks).where(webhooks.c.account_id == bindparam("account_id"), _LIVE)
)
_LOOKING: Final = (
    _ROW.where(
        _LIVE,
        webhooks.c.enabled,
        webhooks.c.id > bindparam("after"),
        webhooks.c.next_look_ms <= bindparam("now_ms"),
    )
    .order_by(webhooks.c.id)
    .limit(bindparam("most"))
)
_SAVE: Final = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("webhook_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)
_ADVANCE: Final = (
    update(webhooks)
    .where(
        webhooks.c.id == bindparam("webhook_id"),
        _LIVE,
        webhooks.c.enabled,
        webhooks.c.flow_cursor == bindparam("old_flow_cursor"),
        webhooks.c.policy_cursor == bindparam("old_policy_cursor"),
        webhooks.c.told_warnings == bindparam("old_told_warnings"),
    )
    .values(
        flow_cursor=bindparam("new_flow_cursor"),
        policy_cursor=bindparam("new_policy_cursor"),
        told_warnings=bindparam("new_told_warnings"),
        next_look_ms=bindparam("new_next_look_ms"),
    )
)


def insert_webhook(connection: Connection, row: WebhookRow) -> None:
    """Store a new webhook."""
    connection.execute(insert(webhooks), {name: getattr(row, name) for name in _FIELDS})


def save_webhook(connection: Connection, row: WebhookRow) -> None:
    """Store a changed webhook, which was found locked."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"webhook_id": row.id})


def find_webhook(connection: Connection, account_id: str, webhook_id: str) -> WebhookRow | None:
    """The account's webhook of that id, deleted or not."""
    row = connection.execute(_BY_ID, {"account_id": account_id, "id": webhook_id}).one_or_none()
    return None if row is None else _row(row)


def find_webhook_locked(connection: Connection, account_id: str, webhook_id: str) -> WebhookRow | None:
    """Like :func:`find_webhook`; nobody else changes the webhook before the transaction ends."""
    row = connection.execute(_BY_ID.with_for_update(), {"account_id": account_id, "id": webhook_id}).one_or_none()
    return None if row is None else _row(row)


def list_webhooks(connection: Connection, account_id: str, *, before: str | None, limit: int) -> list[WebhookRow]:
    """At most ``limit`` live webhooks, newest first, from before id ``before`` on."""
    query = _OWN.where(_LIVE).order_by(webhooks.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(webhooks.c.id < before)
    return [_row(row) for row in connection.execute(query, {"account_id": account_id})]


def count_webhooks(connection: Connection, account_id: str) -> int:
    """How many live webhooks the account has."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def list_looking(connection: Connection, *, now_ms: int, after: str, limit: int) -> list[WebhookRow]:
    """At most ``limit`` webhooks that want to hear of news by now, oldest first, from after id ``after`` on."""
    values = {"now_ms": now_ms, "after": after, "most": limit}
    return [_row(row) for row in connection.execute(_LOOKING, values)]


def advance_webhook(connection: Connection, row: WebhookRow, looked: Looked, *, next_look_ms: int) -> bool:
    """Note how far the news were looked through; False when somebody else did it first, or nobody wants them now."""
    values = {
        "webhook_id": row.id,
        "old_flow_cursor": row.flow_cursor,
        "old_policy_cursor": row.policy_cursor,
        "old_told_warnings": row.told_warnings,
        "new_flow_cursor": looked.flow_cursor,
        "new_policy_cursor": looked.policy_cursor,
        "new_told_warnings": looked.told_warnings,
        "new_next_look_ms": next_look_ms,
    }
    return connection.execute(_ADVANCE, values).rowcount == 1


def find_settled_number(connection: Connection) -> int:
    """The number of the newest flow, before which none will come any more. Needs a write transaction on PostgreSQL.

    PostgreSQL hands out numbers before commits, so that a reader could pass over one that is committed later. Who
    stores flows writes to ``flow_feeds`` in the same transaction: the table's SHARE lock waits for all of those.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE flow_feeds IN SHARE MODE"))
    return find_last_number(connection)


def forget_deleted_webhooks(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Forget at most ``limit`` webhooks that were deleted before; how many they were."""
    oldest = select(webhooks.c.id).where(webhooks.c.delete_time_ms < before_ms).limit(limit)
    ids = [row.id for row in connection.execute(oldest)]
    if ids:
        connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id.in_(ids)))
        connection.execute(delete(webhooks).where(webhooks.c.id.in_(ids)))
    return len(ids)


def has_webhooks_under_other_keys(connection: Connection, fingerprint: str) -> bool:
    """Whether a live webhook's secret was sealed under a key other than that one."""
    query = select(webhooks.c.id).where(_LIVE, webhooks.c.key_fingerprint != fingerprint).limit(1)
    return connection.execute(query).one_or_none() is not None


def _row(row: Any) -> WebhookRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return WebhookRow(*row)
