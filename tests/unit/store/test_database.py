"""Transactions: all or nothing, also for those that share a commit."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Connection, text

from outgate.errors import InvalidValueError
from outgate.store import database as database_module
from outgate.store import threads
from outgate.store.database import Database
from outgate.store.errors import StoreBusyError, StoreError, StoreFullError
from outgate.store.sequence import read_seq, take_numbers

START_SEQ = 1


def bump(tx: Connection) -> int:
    return take_numbers(tx).seq


def bump_then(error: Exception) -> Callable[[Connection], int]:
    def job(tx: Connection) -> int:
        take_numbers(tx)
        raise error

    return job


def test_what_was_written_is_read(database: Database) -> None:
    async def run() -> tuple[int, int]:
        return await database.write(bump), await database.read(read_seq)

    assert asyncio.run(run()) == (START_SEQ + 1, START_SEQ + 1)


def test_a_job_that_raises_leaves_nothing_and_its_error_comes_through(database: Database) -> None:
    async def run() -> None:
        with pytest.raises(InvalidValueError, match="no"):
            await database.write(bump_then(InvalidValueError("no")))

    asyncio.run(run())
    assert database.read_now(read_seq) == START_SEQ


def test_many_writers_at_once_lose_nothing(database: Database) -> None:
    async def run() -> list[int]:
        return await asyncio.gather(*(database.write(bump) for _ in range(200)))

    seqs = asyncio.run(run())
    assert sorted(seqs) == list(range(START_SEQ + 1, START_SEQ + 201))
    assert database.read_now(read_seq) == START_SEQ + 200


def test_jobs_that_fail_do_not_harm_those_that_share_their_commit(sqlite_database: Database) -> None:
    async def run() -> list[object]:
        jobs = [bump_then(InvalidValueError("odd")) if n % 2 else bump for n in range(100)]
        return await asyncio.gather(*(sqlite_database.write(job) for job in jobs), return_exceptions=True)

    results = asyncio.run(run())
    assert sum(isinstance(result, InvalidValueError) for result in results) == 50
    assert sorted(result for result in results if isinstance(result, int)) == list(range(2, 52))
    assert sqlite_database.read_now(read_seq) == START_SEQ + 50


def test_a_commit_that_fails_fails_every_job_in_it(sqlite_database: Database) -> None:
    # A deferred constraint is checked at COMMIT, after the job has returned.
    def break_at_commit(tx: Connection) -> None:
        tx.execute(text("PRAGMA defer_foreign_keys=ON"))
        tx.execute(
            text(
                "INSERT INTO api_keys (id, account_id, name, lookup, digest, create_time_ms)"
                " VALUES ('key_x', 'acct_none', 'x', 'x', x'00', 0)"
            )
        )

    release = threading.Event()

    def wait(tx: Connection) -> None:
        release.wait(5)

    async def run() -> list[object]:
        first = asyncio.ensure_future(sqlite_database.write(wait))
        await asyncio.sleep(0.05)
        both = [asyncio.ensure_future(sqlite_database.write(job)) for job in (bump, break_at_commit)]
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(first, *both, return_exceptions=True)

    results = asyncio.run(run())
    assert [type(result) for result in results] == [StoreError] * 3
    assert sqlite_database.read_now(read_seq) == START_SEQ


def test_a_lock_held_by_another_process_is_a_busy_store(sqlite_database: Database, sqlite_path: Path) -> None:
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()

    async def run() -> list[object]:
        return await asyncio.gather(*(sqlite_database.write(bump) for _ in range(15)), return_exceptions=True)

    results = asyncio.run(run())
    assert [type(result) for result in results] == [StoreBusyError] * 15
    # Together, not one after the other, which would take 2 s for each: they waited for the same lock.
    assert time.monotonic() - started < 20
    other.execute("ROLLBACK")
    other.close()
    assert asyncio.run(sqlite_database.write(bump)) == START_SEQ + 1


def test_reads_go_on_while_another_process_writes(sqlite_database: Database, sqlite_path: Path) -> None:
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert asyncio.run(sqlite_database.read(read_seq)) == START_SEQ
    other.execute("ROLLBACK")
    other.close()


def test_a_full_disk_leaves_nothing_half_done_and_reads_go_on(sqlite_database: Database) -> None:
    def fill(tx: Connection) -> None:
        take_numbers(tx)
        tx.execute(text("CREATE TABLE filler (x BLOB)"))
        tx.execute(text("INSERT INTO filler VALUES (zeroblob(1000000))"))

    def limit(tx: Connection) -> None:
        # What a full disk does to SQLite: SQLITE_FULL, and the transaction is rolled back as a whole.
        pages = tx.execute(text("PRAGMA page_count")).scalar_one()
        tx.execute(text(f"PRAGMA max_page_count={pages + 2}"))

    async def run() -> None:
        await sqlite_database.write(limit)
        results = await asyncio.gather(sqlite_database.write(bump), sqlite_database.write(fill), return_exceptions=True)
        # Whether the first shared the transaction depends on timing; either way each result is true.
        assert isinstance(results[1], StoreFullError)
        kept = 1 if isinstance(results[0], int) else 0
        assert await sqlite_database.read(read_seq) == START_SEQ + kept

    asyncio.run(run())


def test_a_queue_that_is_full_refuses(sqlite_database: Database) -> None:
    release = threading.Event()

    async def run() -> None:
        first = asyncio.ensure_future(sqlite_database.write(lambda _: release.wait(5)))
        await asyncio.sleep(0)
        with pytest.raises(StoreBusyError, match="already wait"):
            await sqlite_database.write(bump)
        release.set()
        await first

    with patch.object(database_module, "PENDING_MAX", 1):
        asyncio.run(run())


@pytest.mark.parametrize("kind", ["read", "write"])
def test_what_waited_too_long_is_refused_unrun(sqlite_database: Database, kind: str) -> None:
    async def run() -> None:
        job = sqlite_database.write(bump) if kind == "write" else sqlite_database.read(read_seq)
        with pytest.raises(StoreBusyError, match="overloaded"):
            await job

    with patch.object(threads, "QUEUED_S_MAX", -1.0):
        asyncio.run(run())
    assert sqlite_database.read_now(read_seq) == START_SEQ


def test_closing_finishes_what_was_given(sqlite_path: Path, sqlite_database: Database) -> None:
    async def run() -> int:
        with Database.open(f"sqlite:///{sqlite_path}") as other:
            return await other.write(bump)

    assert asyncio.run(run()) == START_SEQ + 1
