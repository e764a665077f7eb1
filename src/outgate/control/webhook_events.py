"""News into the outbox: each webhook looks through what happened since its last look, from a cursor of its own.

By cursors and not as things happen: a restart loses nothing, and a storm of denials becomes one delivery every few
seconds that counts them. A webhook whose deliveries do not get through looks no further until some have ended; what
happens meanwhile waits in the log, and is added up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.control.health import FRONT_DOWN, observe_health
from outgate.control.ids import IdMaker, IdPrefix
from outgate.control.services import Services
from outgate.control.webhook_bodies import WarningNews, encode_flows, encode_policies, encode_warnings
from outgate.control.webhook_input import decode_list
from outgate.model.webhooks import DeliveryState, WebhookEvent
from outgate.store.webhook_deliveries import DeliveryRow, count_pending, insert_deliveries
from outgate.store.webhook_news import FlowSpan, find_first_flow, gather_flows, list_policy_news
from outgate.store.webhooks import Looked, WebhookRow, advance_webhook, find_settled_number, list_looking

LOOK_EVERY_MS: Final = 5_000
"""After a delivery was made: no webhook gets more than one of a kind in this time."""
RECORDS_MAX: Final = 100
"""Kinds of decision, or policies, in one delivery."""
SPAN_MAX: Final = 50_000
"""Records of the log that one look adds up: some 100 ms of a reader."""
PENDING_MAX: Final = 10
"""Deliveries that may wait for one webhook while it looks for more."""
_LOOKING_MAX: Final = 200
_VERDICTS: Final[Mapping[WebhookEvent, str]] = {
    WebhookEvent.FLOW_DENIED: "deny",
    WebhookEvent.FLOW_REPORTED: "report_only",
}
_TOLD: Final = msgspec.json.Decoder(tuple[tuple[str, str], ...])


@dataclass(frozen=True, slots=True)
class _Now:
    """What all looks of one round share. ``warnings``: (host, code) → text."""

    now_ms: int
    flow_number: int
    warnings: Mapping[tuple[str, str], str]
    is_settled: bool


@dataclass(slots=True)
class _News:
    """What one webhook is to be told. ``has_moved``: a cursor did, even if nothing is told."""

    looked: Looked
    bodies: list[tuple[WebhookEvent, str]] = field(default_factory=list)
    dropped: int = 0
    has_moved: bool = False


class NewsRounds:
    """Rounds past all webhooks, some of them at a time, so that none waits for ever behind others."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._after = ""

    async def gather(self, now_ms: int, *, is_settled: bool = True) -> int:
        """Let the next webhooks look that want to by now; how many deliveries came of it.

        ``is_settled``: this api has run for long enough that hosts' fronts have found it; before, their absence is no
        news.
        """
        services, after = self._services, self._after
        rows = await services.database.read(lambda tx: list_looking(tx, now_ms=now_ms, after=after, limit=_LOOKING_MAX))
        self._after = rows[-1].id if len(rows) == _LOOKING_MAX else ""
        if not rows:
            return 0
        now = await _observe(services, rows, now_ms, is_settled=is_settled)
        made = 0
        for row in rows:
            news = await services.database.read(partial(_look, row=row, now=now))
            if news is not None and (news.bodies or news.has_moved):
                made += await _store(services, row, news, now_ms)
        return made


async def _store(services: Services, row: WebhookRow, news: _News, now_ms: int) -> int:
    """Put the news into the outbox; how many deliveries that made: none when another process came this far first."""
    deliveries = [_make_delivery(services.ids, row, event, body, now_ms) for event, body in news.bodies]

    def store(tx: Connection) -> bool:
        is_first = advance_webhook(tx, row, news.looked, next_look_ms=now_ms + LOOK_EVERY_MS)
        if is_first:
            insert_deliveries(tx, deliveries)
        return is_first

    if not await services.database.write(store):
        return 0
    services.webhooks.dropped += news.dropped
    return len(deliveries)


async def _observe(services: Services, rows: Iterable[WebhookRow], now_ms: int, *, is_settled: bool) -> _Now:
    wanted = {event for row in rows for event in decode_list(row.events)}
    number = 0
    if not wanted.isdisjoint(_VERDICTS):
        database = services.database
        number = await (database.write if database.is_shared else database.read)(find_settled_number)
    warnings: dict[tuple[str, str], str] = {}
    if WebhookEvent.HOST_WARNING in wanted:
        health = await observe_health(services, now_ms)
        warnings = {(host.name, one.code): one.text for host in health.hosts for one in host.warnings}
    return _Now(now_ms, number, warnings, is_settled)


def _look(tx: Connection, row: WebhookRow, now: _Now) -> _News | None:
    if count_pending(tx, row.id) >= PENDING_MAX:
        return None
    events = decode_list(row.events)
    news = _News(Looked(row.flow_cursor, row.policy_cursor, row.told_warnings))
    _look_at_flows(tx, row, events, now, news)
    if WebhookEvent.POLICY_UPDATED in events:
        _look_at_policies(tx, row, now, news)
    if WebhookEvent.HOST_WARNING in events:
        _look_at_warnings(row, now, news)
    return news


def _look_at_flows(tx: Connection, row: WebhookRow, events: Sequence[str], now: _Now, news: _News) -> None:
    verdicts = {event: verdict for event, verdict in _VERDICTS.items() if event in events}
    whole = FlowSpan(row.account_id, row.flow_cursor, now.flow_number)
    first = find_first_flow(tx, whole, verdicts.values())
    if first is None:
        return
    span = FlowSpan(row.account_id, first - 1, min(now.flow_number, first + SPAN_MAX))
    for event, verdict in verdicts.items():
        found = gather_flows(
            tx,
            span,
            verdict,
            policy_ids=decode_list(row.policy_ids),
            devbox_ids=decode_list(row.devbox_ids),
            limit=RECORDS_MAX,
        )
        if found.flows:
            news.bodies.append((event, encode_flows(event, row.id, found, now.now_ms)))
            news.dropped += found.omitted_count
    news.looked = replace(news.looked, flow_cursor=span.up_to)
    news.has_moved = True


def _look_at_policies(tx: Connection, row: WebhookRow, now: _Now, news: _News) -> None:
    found = list_policy_news(
        tx, row.account_id, after=row.policy_cursor, policy_ids=decode_list(row.policy_ids), limit=RECORDS_MAX
    )
    if found:
        news.bodies.append((WebhookEvent.POLICY_UPDATED, encode_policies(row.id, found, now.now_ms)))
        news.looked = replace(news.looked, policy_cursor=found[-1].seq)


def _look_at_warnings(row: WebhookRow, now: _Now, news: _News) -> None:
    told = dict.fromkeys(_TOLD.decode(row.told_warnings), "")
    current = dict(now.warnings)
    if not now.is_settled:
        current = {key: text for key, text in current.items() if key[1] != FRONT_DOWN or key in told}
    found = compare_warnings(told, current)
    if found:
        news.bodies.append((WebhookEvent.HOST_WARNING, encode_warnings(row.id, found, now.now_ms)))
        encoded = msgspec.json.encode(sorted(current)).decode()
        news.looked = replace(news.looked, told_warnings=encoded)


def compare_warnings(
    told: Mapping[tuple[str, str], str], current: Mapping[tuple[str, str], str]
) -> tuple[WarningNews, ...]:
    """What began and what ended between two looks; the keys are (host, code), the values texts."""
    began = [WarningNews(*key, text=current[key], state="began") for key in sorted(current.keys() - told.keys())]
    ended = [WarningNews(*key, text=told[key], state="ended") for key in sorted(told.keys() - current.keys())]
    return (*began, *ended)


def _make_delivery(ids: IdMaker, row: WebhookRow, event: WebhookEvent, body: str, now_ms: int) -> DeliveryRow:
    return DeliveryRow(
        id=ids.make(IdPrefix.DELIVERY, now_ms),
        webhook_id=row.id,
        event=event.value,
        body=body,
        state=DeliveryState.PENDING.value,
        tries=0,
        create_time_ms=now_ms,
        next_try_ms=now_ms,
    )
