"""Sessions of the console, on both kinds of store: how long they last."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import func, select, update

from outgate.control.accounts import NewKey, create_account, revoke_key
from outgate.control.console_sessions import (
    IDLE_MS,
    LIFE_MS,
    SEEN_EVERY_MS,
    SESSIONS_MAX,
    Session,
    find_session,
    forget_ended_sessions,
    is_signed_in,
    sign_in,
    sign_out,
)
from outgate.control.ids import IdMaker
from outgate.control.services import Services
from outgate.store.console_tables import console_sessions
from outgate.store.database import Database
from outgate.store.tables import api_keys
from support.api_server import FakeGateway, make_services

T = TypeVar("T")
NOW_MS = 1_800_000_000_000


@pytest.fixture
def services(database: Database, tmp_path: Path) -> Services:
    return make_services(tmp_path, database, FakeGateway())


@pytest.fixture
def key(database: Database) -> NewKey:
    return create_account(database, IdMaker(), "own", NOW_MS)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


def count(database: Database) -> int:
    return database.read_now(lambda tx: tx.execute(select(func.count()).select_from(console_sessions)).scalar_one())


def test_use_prolongs_a_session_up_to_its_life(services: Services, key: NewKey) -> None:
    async def live() -> None:
        token = await sign_in(services, key.api_key, "client", NOW_MS)
        now_ms = NOW_MS
        while now_ms < NOW_MS + LIFE_MS - IDLE_MS + 1:
            now_ms += IDLE_MS - 1
            assert await find_session(services, token, now_ms) is not None
        assert await find_session(services, token, NOW_MS + LIFE_MS) is None
        idle = await sign_in(services, key.api_key, "client", NOW_MS)
        assert await find_session(services, idle, NOW_MS + IDLE_MS - 1) is not None
        unused = await sign_in(services, key.api_key, "client", NOW_MS)
        assert await find_session(services, unused, NOW_MS + IDLE_MS) is None

    run(live)


def test_looking_is_no_use_and_use_is_stored_now_and_then(services: Services, key: NewKey) -> None:
    async def live() -> None:
        token = await sign_in(services, key.api_key, "client", NOW_MS)
        assert await is_signed_in(services, token, NOW_MS + IDLE_MS - 1)
        assert await find_session(services, token, NOW_MS + SEEN_EVERY_MS - 1) is not None
        assert not await is_signed_in(services, token, NOW_MS + IDLE_MS), "neither of them prolonged it"

    run(live)


def test_what_a_session_may_is_what_its_key_may(services: Services, key: NewKey) -> None:
    session = run(lambda: _begin(services, key.api_key))
    assert session is not None
    assert (session.caller.account_id, session.caller.key_id, session.caller.scopes) == (
        key.account_id,
        key.key_id,
        None,
    )
    assert (session.account_name, session.key_name) == ("own", "first")
    assert session.token not in repr(session)
    assert session.form_token not in repr(session)


async def _begin(services: Services, api_key: str) -> Session | None:
    return await find_session(services, await sign_in(services, api_key, "client", NOW_MS), NOW_MS)


def test_it_ends_with_its_key_however_that_ends(services: Services, database: Database, key: NewKey) -> None:
    async def live() -> None:
        token = await sign_in(services, key.api_key, "client", NOW_MS)
        expire_at(database, key.key_id, NOW_MS + 10)
        assert await find_session(services, token, NOW_MS + 9) is not None
        assert await find_session(services, token, NOW_MS + 10) is None
        expire_at(database, key.key_id, None)
        assert await find_session(services, token, NOW_MS + 10) is not None
        revoke_key(database, key.key_id, NOW_MS)
        assert await find_session(services, token, NOW_MS + 10) is None

    run(live)


def expire_at(database: Database, key_id: str, time_ms: int | None) -> None:
    changed = update(api_keys).where(api_keys.c.id == key_id).values(expire_time_ms=time_ms)
    database.write_now(lambda tx: tx.execute(changed))


def test_sessions_of_a_key_are_bounded_and_ended_ones_forgotten(
    services: Services, database: Database, key: NewKey
) -> None:
    async def live() -> None:
        tokens = [await sign_in(services, key.api_key, "client", NOW_MS + n) for n in range(SESSIONS_MAX + 2)]
        assert [await is_signed_in(services, token, NOW_MS + 200) for token in tokens[:3]] == [False, False, True]
        await sign_out(services, tokens[-1])
        assert not await is_signed_in(services, tokens[-1], NOW_MS + 200)
        assert await forget_ended_sessions(services, NOW_MS + IDLE_MS + 2) == 1
        assert await forget_ended_sessions(services, NOW_MS + 2 * IDLE_MS) == SESSIONS_MAX - 2

    run(live)
    assert count(database) == 0


@pytest.mark.parametrize("token", ["", "x", "x" * 1000, "ü"])
def test_tokens_that_are_none(services: Services, token: str) -> None:
    assert run(lambda: find_session(services, token, NOW_MS)) is None
