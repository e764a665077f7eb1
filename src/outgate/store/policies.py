"""Policies and their revisions. A revision is written once and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, insert, or_, select, update

from outgate.store.tables import accounts, policies, policy_revisions


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy with its current revision. ``document`` is the JSON of a PolicyDocument."""

    id: str
    account_id: str
    name: str
    number: int
    revision: int
    create_time_ms: int
    update_time_ms: int
    delete_time_ms: int | None
    seq: int
    description: str | None
    document: str
    enforcement: str = "enforce"
    """What the document says of it."""


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One stored version: what it said, who made it and when."""

    revision: int
    description: str | None
    document: str
    key_id: str
    time_ms: int
    enforcement: str


@dataclass(frozen=True, slots=True)
class PolicyFilter:
    """What a list shows: None does not filter. ``before`` is the id after which (newest first) to go on."""

    id: str | None = None
    name_part: str | None = None
    search: str | None = None
    enforcement: str | None = None
    before: str | None = None


_CURRENT: Final = policies.join(
    policy_revisions,
    (policy_revisions.c.policy_id == policies.c.id) & (policy_revisions.c.revision == policies.c.revision),
)
_ROW: Final = select(
    policies.c.id,
    policies.c.account_id,
    policies.c.name,
    policies.c.number,
    policies.c.revision,
    policies.c.create_time_ms,
    policies.c.update_time_ms,
    policies.c.delete_time_ms,
    policies.c.seq,
    policy_revisions.c.description,
    policy_revisions.c.document,
    policies.c.enforcement,
).select_from(_CURRENT)
_BY_ID: Final = _ROW.where(policies.c.id == bindparam("id"), policies.c.account_id == bindparam("account_id"))
_OWN: Final = select(policies.c.id).where(
    policies.c.id == bindparam("id"), policies.c.account_id == bindparam("account_id")
)
_LOCK: Final = _OWN.with_for_update()
_LOCK_SHARED: Final = _OWN.with_for_update(read=True)
_DOCUMENTS: Final = select(policies.c.id, policy_revisions.c.document).select_from(_CURRENT)
_ID_BY_NAME: Final = select(policies.c.id).where(
    policies.c.account_id == bindparam("account_id"),
    policies.c.name == bindparam("name"),
    policies.c.delete_time_ms.is_(None),
)
_COUNT: Final = (
    select(func.count())
    .select_from(policies)
    .where(policies.c.account_id == bindparam("account_id"), policies.c.delete_time_ms.is_(None))
)
_INSERT: Final = insert(policies)
_INSERT_REVISION: Final = insert(policy_revisions)
_ADVANCE: Final = (
    update(policies)
    .where(policies.c.id == bindparam("policy_id"))
    .values(
        name=bindparam("new_name"),
        revision=bindparam("new_revision"),
        update_time_ms=bindparam("now_ms"),
        seq=bindparam("new_seq"),
        enforcement=bindparam("new_enforcement"),
    )
)
_MARK_DELETED: Final = (
    update(policies)
    .where(policies.c.id == bindparam("policy_id"))
    .values(delete_time_ms=bindparam("now_ms"), seq=bindparam("new_seq"))
)
_LOCK_ACCOUNT: Final = select(accounts.c.id).where(accounts.c.id == bindparam("account_id")).with_for_update()


def lock_account(connection: Connection, account_id: str) -> None:
    """Keep others from adding to the account until the transaction ends, so that limits and names hold."""
    connection.execute(_LOCK_ACCOUNT, {"account_id": account_id})


def count_policies(connection: Connection, account_id: str) -> int:
    """How many live policies the account has."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def find_policy_id_by_name(connection: Connection, account_id: str, name: str) -> str | None:
    """The account's live policy of that name."""
    found: str | None = connection.execute(_ID_BY_NAME, {"account_id": account_id, "name": name}).scalar_one_or_none()
    return found


def find_policy(connection: Connection, account_id: str, policy_id: str) -> PolicyRow | None:
    """The account's policy, deleted or not."""
    row = connection.execute(_BY_ID, {"account_id": account_id, "id": policy_id}).one_or_none()
    return None if row is None else _row(row)


def find_policy_locked(connection: Connection, account_id: str, policy_id: str) -> PolicyRow | None:
    """Like :func:`find_policy`; nobody else changes the policy before the transaction ends."""
    return _find_behind(_LOCK, connection, account_id, policy_id)


def find_policy_shared(connection: Connection, account_id: str, policy_id: str) -> PolicyRow | None:
    """Like :func:`find_policy`; the policy is not changed or deleted before the transaction ends."""
    return _find_behind(_LOCK_SHARED, connection, account_id, policy_id)


def _find_behind(lock: Select[str], connection: Connection, account_id: str, policy_id: str) -> PolicyRow | None:
    # The lock is a statement of its own. PostgreSQL, having waited for a lock, reads the locked row anew but joins
    # it with the statement's old snapshot, in which the other writer's revision does not exist yet. SQLite needs
    # none: a write transaction there holds the lock of the whole database from its start.
    if connection.dialect.name != "sqlite":
        connection.execute(lock, {"account_id": account_id, "id": policy_id})
    return find_policy(connection, account_id, policy_id)


def insert_policy(connection: Connection, row: PolicyRow, *, key_id: str) -> None:
    """Store a new policy and its first revision."""
    connection.execute(
        _INSERT,
        {
            "id": row.id,
            "account_id": row.account_id,
            "name": row.name,
            "number": row.number,
            "revision": row.revision,
            "create_time_ms": row.create_time_ms,
            "update_time_ms": row.update_time_ms,
            "seq": row.seq,
            "enforcement": row.enforcement,
        },
    )
    _insert_revision(connection, row, key_id=key_id)


def advance_policy(connection: Connection, row: PolicyRow, *, key_id: str) -> None:
    """Store ``row`` as the policy's next revision; its revision, seq and times are the new ones."""
    connection.execute(
        _ADVANCE,
        {
            "policy_id": row.id,
            "new_name": row.name,
            "new_revision": row.revision,
            "now_ms": row.update_time_ms,
            "new_seq": row.seq,
            "new_enforcement": row.enforcement,
        },
    )
    _insert_revision(connection, row, key_id=key_id)


def _insert_revision(connection: Connection, row: PolicyRow, *, key_id: str) -> None:
    connection.execute(
        _INSERT_REVISION,
        {
            "policy_id": row.id,
            "revision": row.revision,
            "account_id": row.account_id,
            "description": row.description,
            "document": row.document,
            "key_id": key_id,
            "time_ms": row.update_time_ms,
            "enforcement": row.enforcement,
        },
    )


def mark_policy_deleted(connection: Connection, policy_id: str, *, now_ms: int, seq: int) -> None:
    """Take the policy out of the account; its revisions stay."""
    connection.execute(_MARK_DELETED, {"policy_id": policy_id, "now_ms": now_ms, "new_seq": seq})


def list_policies(connection: Connection, account_id: str, wanted: PolicyFilter, *, limit: int) -> list[PolicyRow]:
    """At most ``limit`` live policies, newest first."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(policies.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(policies.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed(connection: Connection, account_id: str, wanted: PolicyFilter) -> int:
    """How many live policies match, on all pages."""
    query = select(func.count()).select_from(policies).where(*_conditions(account_id, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, wanted: PolicyFilter) -> Sequence[ColumnElement[bool]]:
    conditions = [policies.c.account_id == account_id, policies.c.delete_time_ms.is_(None)]
    if wanted.id is not None:
        conditions.append(policies.c.id == wanted.id)
    if wanted.name_part is not None:
        conditions.append(policies.c.name.icontains(wanted.name_part, autoescape=True))
    if wanted.enforcement is not None:
        conditions.append(policies.c.enforcement == wanted.enforcement)
    if wanted.search is not None:
        named = policies.c.name.icontains(wanted.search, autoescape=True)
        conditions.append(or_(policies.c.id == wanted.search, named))
    return conditions


def list_revisions(
    connection: Connection, account_id: str, policy_id: str, *, before: int | None, limit: int
) -> list[RevisionRow]:
    """At most ``limit`` revisions older than ``before``, newest first."""
    columns = policy_revisions.c
    query = (
        select(
            columns.revision,
            columns.description,
            columns.document,
            columns.key_id,
            columns.time_ms,
            columns.enforcement,
        )
        .where(columns.policy_id == policy_id, columns.account_id == account_id)
        .order_by(columns.revision.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(columns.revision < before)
    return [RevisionRow(*row) for row in connection.execute(query)]


def find_revision(connection: Connection, account_id: str, policy_id: str, revision: int) -> RevisionRow | None:
    """One version of a policy."""
    found = list_revisions(connection, account_id, policy_id, before=revision + 1, limit=1)
    return found[0] if found and found[0].revision == revision else None


def read_documents(connection: Connection, policy_ids: Sequence[str]) -> Mapping[str, str]:
    """The current documents of these policies, deleted ones too (a devbox that is ending keeps its policy)."""
    query = _DOCUMENTS.where(policies.c.id.in_(policy_ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _row(row: Any) -> PolicyRow:
    # Any: SQLAlchemy types rows of up to nine columns only.
    return PolicyRow(*row)
