"""Deliveries against a real receiver on loopback: what is tried when, under which id, and what becomes of it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest

from outgate.client.webhook_post import Answer, WebhookPoster
from outgate.clock import wall_ms
from outgate.control import webhook_delivery, webhook_events
from outgate.control.accounts import create_account
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.configuration import ApiSettings
from outgate.control.secret_values import KeyRing
from outgate.control.services import Services
from outgate.control.webhook_delivery import (
    Deliverer,
    claim_delivery,
    deliver_forever,
    forget_old_webhooks,
    try_delivery,
)
from outgate.control.webhook_events import PENDING_MAX, NewsRounds
from outgate.control.webhook_input import WebhookInput
from outgate.control.webhook_outcome import KEPT_PER_WEBHOOK_MAX, Outcome, settle_try
from outgate.control.webhook_schedule import GIVE_UP_MS, SWITCH_OFF_FAILURES, SWITCH_OFF_MS
from outgate.control.webhooks import (
    WAKE,
    ShownWebhook,
    create_webhook,
    get_webhook,
    page_deliveries,
    try_webhook,
    update_webhook,
)
from outgate.model.webhooks import WebhookTarget
from outgate.store.database import Database
from outgate.store.flows import insert_flows
from outgate.store.webhook_deliveries import DeliveryRow, insert_deliveries
from outgate.store.webhooks import WebhookRow, list_looking
from support.api_server import FakeGateway, make_services, open_database
from support.webhook_receiver import Receiver, Reply, run_receiver

DAY_MS = 24 * 3_600_000
WAIT_S_MAX = 50.0
LOOPBACK = ApiSettings(webhook_networks=(ip_network("127.0.0.0/8"),), webhook_http_hosts=(IPv4Address("127.0.0.1"),))


def open_services(directory: Path, keys: KeyRing | None = None) -> tuple[Database, Services]:
    database = open_database(f"sqlite:///{directory / 'outgate.db'}")
    services = make_services(directory, database, FakeGateway(), LOOPBACK)
    if keys is not None:
        object.__setattr__(services, "keys", keys)
    return database, services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    database, services = open_services(tmp_path)
    with database:
        yield services


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
        yield running


def enrol(services: Services, name: str = "one") -> Caller:
    made = create_account(services.database, services.ids, name, wall_ms())
    return Caller(made.account_id, made.key_id)


async def make(services: Services, caller: Caller, url: str, **given: Any) -> ShownWebhook:
    body = WebhookInput(**{"url": url, "events": ["flow.denied"]} | given)
    return await create_webhook(services, Call(caller, wall_ms()), body)


def put(services: Services, row: WebhookRow, number: int = 1, *, create_time_ms: int | None = None) -> str:
    """A delivery that waits; its id."""
    now_ms = wall_ms() if create_time_ms is None else create_time_ms
    delivery = DeliveryRow(f"msg_{number:05}", row.id, "flow.denied", '{"n":1}', "pending", 0, now_ms, now_ms)
    services.database.write_now(lambda tx: insert_deliveries(tx, [delivery]))
    return delivery.id


async def read(services: Services, caller: Caller, row: WebhookRow) -> tuple[WebhookRow, list[DeliveryRow]]:
    webhook = await get_webhook(services, caller, row.id)
    page = await page_deliveries(services, caller, row.id, before=None, limit=500)
    return webhook, list(page.deliveries)


async def fail(services: Services, row: WebhookRow, now_ms: int, outcome: Outcome) -> bool:
    """One try at ``now_ms`` that ends so; False when nothing is due."""
    claimed = await claim_delivery(services, row.account_id, row.id, now_ms)
    if claimed is None:
        return False
    await settle_try(services, claimed, outcome, now_ms)
    return True


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await is_so():  # noqa: ASYNC110 - what it asks of is in the store, which wakes nobody
            await asyncio.sleep(0.02)


def test_after_failures_the_same_delivery_succeeds(services: Services, receiver: Receiver) -> None:
    """Each try at the moment that the one before it left in the store."""
    receiver.replies = [Reply(500), Reply(503, {"retry-after": "600"}), Reply(302, {"location": receiver.url})]

    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, receiver.url)
        delivery_id = put(services, made.row)
        poster = WebhookPoster(LOOPBACK.webhook_networks)
        now_ms, waited = wall_ms(), []
        for _ in range(4):
            claimed = await claim_delivery(services, caller.account_id, made.row.id, now_ms)
            assert claimed is not None
            await settle_try(services, claimed, await try_delivery(services, poster, claimed), now_ms)
            row, (delivery,) = await read(services, caller, made.row)
            waited.append(delivery.next_try_ms - now_ms)
            if delivery.state == "pending":
                assert await claim_delivery(services, caller.account_id, made.row.id, delivery.next_try_ms - 1) is None
                assert (row.failing_since_ms is not None, row.failures) == (True, delivery.tries)
                now_ms = delivery.next_try_ms
        assert (delivery.state, delivery.tries, delivery.response_code) == ("delivered", 4, 204)
        assert (row.failing_since_ms, row.failures, row.problem) == (None, 0, "")
        assert 3750 <= waited[0] <= 6250
        assert waited[1] == 600_000
        assert {one.id for one in receiver.deliveries} == {delivery_id}
        assert {one.body for one in receiver.deliveries} == {b'{"n":1}'}
        for one in receiver.deliveries:
            assert one.verify(made.secret) == {"n": 1}

    asyncio.run(go())
    counters = services.webhooks
    assert (counters.delivered, counters.retries, counters.failed) == (1, 3, 0)


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (Outcome(404, ""), "answered 404"),
        (Outcome(301, ""), "answered 301: redirects are not followed; give the URL where it leads"),
        (Outcome(None, "no connection"), "no connection"),
    ],
)
def test_a_delivery_is_given_up_after_a_day(services: Services, outcome: Outcome, problem: str) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        began_ms = wall_ms()
        put(services, made.row, create_time_ms=began_ms)
        now_ms = began_ms
        while await fail(services, made.row, now_ms, outcome):
            row, (delivery,) = await read(services, caller, made.row)
            now_ms = max(delivery.next_try_ms, now_ms)
            assert (row.problem, delivery.error) == (problem, problem)
        assert delivery.state == "failed"
        assert delivery.end_time_ms is not None
        assert GIVE_UP_MS * 0.85 <= delivery.end_time_ms - began_ms <= GIVE_UP_MS
        assert row.enabled

    asyncio.run(go())
    assert services.webhooks.failed == 1


def test_a_webhook_that_fails_for_days_is_switched_off_and_its_owner_sees_why(services: Services) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        began_ms = wall_ms()
        for number in range(SWITCH_OFF_FAILURES - 1):
            put(services, made.row, number, create_time_ms=began_ms)
            assert await fail(services, made.row, began_ms, Outcome(500, ""))
        row, _ = await read(services, caller, made.row)
        assert (row.enabled, row.failing_since_ms, row.failures) == (True, began_ms, SWITCH_OFF_FAILURES - 1)
        later_ms = began_ms + SWITCH_OFF_MS
        put(services, made.row, 99, create_time_ms=later_ms)
        assert await fail(services, made.row, later_ms, Outcome(500, ""))
        row, found = await read(services, caller, made.row)
        assert (row.enabled, row.problem) == (
            False,
            "Switched off: it failed for three days (answered 500). Set enabled to true when it works again.",
        )
        assert {one.state for one in found} == {"failed"}
        assert services.webhooks.switched_off == 1
        again = await update_webhook(services, Call(caller, later_ms), row.id, WebhookInput(enabled=True))
        assert (again.enabled, again.problem, again.failures, again.failing_since_ms) == (True, "", 0, None)

    asyncio.run(go())


def test_a_receiver_that_says_gone_is_believed_at_once_but_not_in_a_test(
    services: Services, receiver: Receiver
) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, receiver.url)
        await try_webhook(services, Call(caller, wall_ms()), made.row.id)
        assert await fail(services, made.row, wall_ms(), Outcome(410, ""))
        assert (await get_webhook(services, caller, made.row.id)).enabled
        put(services, made.row)
        assert await fail(services, made.row, wall_ms(), Outcome(410, ""))
        row = await get_webhook(services, caller, made.row.id)
        assert (row.enabled, "does not want it" in row.problem) == (False, True)

    asyncio.run(go())


def test_a_restart_in_the_middle_of_a_try_delivers_the_same_again(tmp_path: Path, receiver: Receiver) -> None:
    """The first process ends while the receiver has not answered; the second begins on the same store."""
    silent = Reply(release=threading.Event())
    receiver.replies = [silent]

    async def first(services: Services) -> None:
        made = await make(services, enrol(services), receiver.url)
        put(services, made.row)
        sending = asyncio.create_task(deliver_forever(services))
        await asyncio.to_thread(receiver.wait, 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    async def second(services: Services) -> None:
        sending = asyncio.create_task(deliver_forever(services))
        await asyncio.to_thread(receiver.wait, 2)

        async def is_noted() -> bool:
            return services.webhooks.delivered == 1

        await until(is_noted)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    database, services = open_services(tmp_path)
    with database:
        asyncio.run(first(services))
    database, services = open_services(tmp_path, services.keys)
    with database:
        asyncio.run(second(services))
    assert silent.release is not None
    silent.release.set()
    assert [one.id for one in receiver.deliveries] == ["msg_00001"] * 2


def test_a_process_that_dies_leaves_a_lease_that_ends(services: Services) -> None:
    async def go() -> None:
        made = await make(services, enrol(services), "https://hooks.example/")
        put(services, made.row)
        now_ms = wall_ms()
        first = await claim_delivery(services, made.row.account_id, made.row.id, now_ms)
        assert first is not None
        assert await claim_delivery(services, made.row.account_id, made.row.id, now_ms + 29_999) is None
        second = await claim_delivery(services, made.row.account_id, made.row.id, now_ms + 30_000)
        assert second is not None
        assert second.delivery.id == first.delivery.id
        # The first was only slow: what it says is stored once, and the second's lease is not touched.
        await settle_try(services, first, Outcome(204, ""), now_ms + 30_001)
        await settle_try(services, second, Outcome(500, ""), now_ms + 30_002)
        assert (services.webhooks.delivered, services.webhooks.retries) == (1, 0)

    asyncio.run(go())


class HangingPoster(WebhookPoster):
    """Never gets an answer from hosts that are called silent, and one at once from all others."""

    def __init__(self) -> None:
        super().__init__(())
        self.asked: list[str] = []

    async def post(self, target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> Answer:  # noqa: ARG002 - overrides
        self.asked.append(str(target.host))
        if str(target.host).startswith("silent"):
            await asyncio.Event().wait()
        return Answer(204, None)


def test_silent_receivers_delay_no_other_and_none_is_asked_twice_at_once(services: Services) -> None:
    async def go() -> None:
        hog, other = enrol(services, "hog"), enrol(services, "other")
        for number in range(webhook_delivery.ACCOUNT_TRIES_MAX + 3):
            made = await make(services, hog, f"https://silent{number}.example/")
            for delivery in range(2):
                put(services, made.row, 10 * number + delivery)
        quick = await make(services, other, "https://quick.example/")
        for number in range(5):
            put(services, quick.row, 1000 + number)
        poster = HangingPoster()
        with services.wakeups.watch(WAKE) as watch:
            deliverer = Deliverer(services, poster, watch)

            async def is_done() -> bool:
                await deliverer.start_due(wall_ms())
                return services.webhooks.delivered == 5

            await until(is_done)
            assert services.webhooks.pending
            await deliverer.stop()
        silent = [host for host in poster.asked if host.startswith("silent")]
        assert len(silent) == len(set(silent)) == webhook_delivery.ACCOUNT_TRIES_MAX

    asyncio.run(go())


def test_what_nobody_foresaw_ends_the_try_and_not_the_api(services: Services) -> None:
    class Broken(WebhookPoster):
        async def post(self, target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> Answer:  # noqa: ARG002 - overrides
            raise ZeroDivisionError("secret detail")

    async def go() -> None:
        made = await make(services, enrol(services), "https://hooks.example/")
        put(services, made.row)
        claimed = await claim_delivery(services, made.row.account_id, made.row.id, wall_ms())
        assert claimed is not None
        outcome = await try_delivery(services, Broken(()), claimed)
        assert outcome == Outcome(None, "the answer could not be read (ZeroDivisionError)")

    asyncio.run(go())


def deny(services: Services, account_id: str, *names: str) -> None:
    row = {
        "account_id": account_id,
        "devbox_id": "dbx_1",
        "policy_id": "npol_1",
        "revision": 1,
        "time_ms": 1,
        "began_ms": 1,
        "count": 1,
        "verdict": "deny",
        "reason": "no_rule",
        "point": "dns",
        "rule": "",
        "sentence": "",
        "address": "",
        "port": 0,
        "protocol": "",
        "bytes_out": None,
        "bytes_in": None,
        "duration_ms": None,
    }
    services.database.write_now(lambda tx: insert_flows(tx, [row | {"name": name} for name in names]))


def test_a_storm_is_a_delivery_every_few_seconds_and_one_that_fails_holds_up_the_rest(services: Services) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        rounds, now_ms = NewsRounds(services), wall_ms()
        made_by_turn = []
        for turn in range(20):
            deny(services, caller.account_id, *(f"{turn}-{n}.example" for n in range(3)))
            made_by_turn.append(await rounds.gather(now_ms + turn * 1000))
        assert made_by_turn == [1, 0, 0, 0, 0] * 4
        for turn in range(4, PENDING_MAX):
            deny(services, caller.account_id, f"more-{turn}.example")
            assert await rounds.gather(now_ms + turn * 5000) == 1
        # Ten wait. What happens now waits in the log, and is told as one when some have ended.
        for turn in range(5):
            deny(services, caller.account_id, f"late-{turn}.example")
            assert await rounds.gather(now_ms + DAY_MS + turn * 5000) == 0
        assert await fail(services, made.row, now_ms + DAY_MS, Outcome(204, ""))
        assert await rounds.gather(now_ms + DAY_MS + 60_000) == 1
        _, (newest, *_) = await read(services, caller, made.row)
        assert [f"late-{turn}.example" in newest.body for turn in range(5)] == [True] * 5

    asyncio.run(go())


def test_a_delivery_is_full_at_some_point_and_says_what_it_left_out(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_events, "RECORDS_MAX", 2)

    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        deny(services, caller.account_id, *(f"{n}.example" for n in range(7)))
        assert await NewsRounds(services).gather(wall_ms()) == 1
        _, (delivery,) = await read(services, caller, made.row)
        assert '"omitted_count":5' in delivery.body

    asyncio.run(go())
    assert services.webhooks.dropped == 5


def test_a_long_log_is_looked_through_piece_by_piece(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_events, "SPAN_MAX", 4)

    async def go() -> None:
        caller, other = enrol(services), enrol(services, "other")
        await make(services, caller, "https://hooks.example/", devbox_ids=["dbx_" + "0" * 21])
        await make(services, other, "https://hooks.example/")
        deny(services, caller.account_id, *(f"{n}.example" for n in range(9)))
        deny(services, other.account_id, "last.example")
        rounds, now_ms = NewsRounds(services), wall_ms()
        # The other's own first record is found at once, however many others lie before it.
        assert [await rounds.gather(now_ms + turn * 5000) for turn in range(3)] == [1, 0, 0]
        rows = services.database.read_now(lambda tx: list_looking(tx, now_ms=now_ms * 2, after="", limit=9))
        assert [row.flow_cursor for row in rows] == [10, 10]

    asyncio.run(go())


def test_every_webhook_has_its_turn(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_events, "_LOOKING_MAX", 2)

    async def go() -> None:
        caller = enrol(services)
        for _ in range(5):
            await make(services, caller, "https://hooks.example/")
        deny(services, caller.account_id, "a.example")
        rounds = NewsRounds(services)
        assert [await rounds.gather(wall_ms()) for _ in range(4)] == [2, 2, 1, 0]

    asyncio.run(go())


def test_only_so_many_that_ended_are_kept_and_not_for_ever(services: Services) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        now_ms = wall_ms()
        for number in range(KEPT_PER_WEBHOOK_MAX + 3):
            put(services, made.row, number, create_time_ms=now_ms)
            assert await fail(services, made.row, now_ms, Outcome(204, ""))
        _, found = await read(services, caller, made.row)
        assert len(found) == KEPT_PER_WEBHOOK_MAX
        assert await forget_old_webhooks(services, now_ms) == 0
        assert await forget_old_webhooks(services, now_ms + 8 * DAY_MS) == KEPT_PER_WEBHOOK_MAX

    asyncio.run(go())


def test_switching_off_gives_up_what_waits(services: Services) -> None:
    async def go() -> None:
        caller = enrol(services)
        made = await make(services, caller, "https://hooks.example/")
        put(services, made.row)
        claimed = await claim_delivery(services, caller.account_id, made.row.id, wall_ms())
        await update_webhook(services, Call(caller, wall_ms()), made.row.id, WebhookInput(enabled=False))
        assert claimed is not None
        await settle_try(services, claimed, Outcome(500, ""), wall_ms())
        row, (delivery,) = await read(services, caller, made.row)
        assert (row.enabled, row.failures) == (False, 0)
        assert (delivery.state, delivery.error) == ("failed", "the webhook was switched off")

    asyncio.run(go())
