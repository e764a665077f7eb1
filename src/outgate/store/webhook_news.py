"""What webhooks are told of: denials out of the log of flows, added up by kind, and changes of policies."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func, select

from outgate.store.flow_tables import flows
from outgate.store.flows import FlowRow
from outgate.store.tables import policies, policy_revisions


@dataclass(frozen=True, slots=True)
class FlowSpan:
    """Records of an account after number ``after``, up to and including ``up_to``."""

    account_id: str
    after: int
    up_to: int


@dataclass(frozen=True, slots=True)
class FlowNews:
    """Kinds of decision, in the order of their first record: of each the newest, with ``count`` added up.

    ``omitted_count``: how many decisions of other kinds found no room.
    """

    flows: tuple[FlowRow, ...]
    omitted_count: int


@dataclass(frozen=True, slots=True)
class PolicyNews:
    """A policy that changed, as it is now. ``key_id`` made its revision."""

    id: str
    name: str
    revision: int
    update_time_ms: int
    delete_time_ms: int | None
    key_id: str
    seq: int


_FLOW: Final = select(*(flows.c[name] for name in FlowRow.__dataclass_fields__))
# One place, however many addresses its name has.
_PLACE: Final = case((flows.c.name == "", flows.c.address), else_="")
_KIND: Final = (
    flows.c.devbox_id,
    flows.c.policy_id,
    flows.c.reason,
    flows.c.name,
    _PLACE,
    flows.c.port,
    flows.c.protocol,
)
_POLICY: Final = (
    select(
        policies.c.id,
        policies.c.name,
        policies.c.revision,
        policies.c.update_time_ms,
        policies.c.delete_time_ms,
        policy_revisions.c.key_id,
        policies.c.seq,
    )
    .join(
        policy_revisions,
        (policy_revisions.c.policy_id == policies.c.id) & (policy_revisions.c.revision == policies.c.revision),
    )
    .order_by(policies.c.seq)
)


def find_first_flow(connection: Connection, span: FlowSpan, verdicts: Collection[str]) -> int | None:
    """The number of the span's first record with one of ``verdicts``."""
    found = [
        # One query each: an index leads to the first of one verdict.
        connection.execute(
            select(flows.c.number).where(*_in_span(span), flows.c.verdict == verdict).order_by(flows.c.number).limit(1)
        ).scalar_one_or_none()
        for verdict in verdicts
    ]
    return min((number for number in found if number is not None), default=None)


def gather_flows(
    connection: Connection,
    span: FlowSpan,
    verdict: str,
    *,
    policy_ids: Collection[str],
    devbox_ids: Collection[str],
    limit: int,
) -> FlowNews:
    """At most ``limit`` kinds of decision with that verdict, of these policies and devboxes (of all when empty)."""
    # Records of finished flows repeat what was decided.
    wanted = [*_in_span(span), flows.c.verdict == verdict, flows.c.bytes_out.is_(None)]
    if policy_ids:
        wanted.append(flows.c.policy_id.in_(sorted(policy_ids)))
    if devbox_ids:
        wanted.append(flows.c.devbox_id.in_(sorted(devbox_ids)))
    grouped = (
        select(
            func.max(flows.c.number).label("last"),
            func.sum(flows.c.count).label("times"),
            func.min(flows.c.began_ms).label("began_ms"),
        )
        .where(*wanted)
        .group_by(*_KIND)
        .order_by(func.min(flows.c.number))
        .limit(limit)
    )
    kinds = connection.execute(grouped).all()
    if not kinds:
        return FlowNews((), 0)
    newest = {row.number: FlowRow(*row) for row in connection.execute(_FLOW.where(_numbers(kinds)))}
    # PostgreSQL adds whole numbers up to decimals.
    told = tuple(replace(newest[row.last], count=int(row.times), began_ms=row.began_ms) for row in kinds)
    total = connection.execute(select(func.sum(flows.c.count)).where(*wanted)).scalar_one()
    return FlowNews(told, int(total) - sum(flow.count for flow in told))


def list_policy_news(
    connection: Connection, account_id: str, *, after: int, policy_ids: Collection[str], limit: int
) -> list[PolicyNews]:
    """At most ``limit`` policies that changed after sequence ``after``, those that did first first."""
    query = _POLICY.where(policies.c.account_id == account_id, policies.c.seq > after).limit(limit)
    if policy_ids:
        query = query.where(policies.c.id.in_(sorted(policy_ids)))
    return [PolicyNews(*row) for row in connection.execute(query)]


def _in_span(span: FlowSpan) -> list[ColumnElement[bool]]:
    return [flows.c.account_id == span.account_id, flows.c.number > span.after, flows.c.number <= span.up_to]


def _numbers(kinds: Collection[Any]) -> ColumnElement[bool]:
    return flows.c.number.in_([row.last for row in kinds])
