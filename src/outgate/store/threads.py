"""Who commits: threads that take one job after the other, and for SQLite one thread that commits many at once.

SQLite has one writer at a time and waits for the disk at each commit (0.2 ms here when the machine is idle, more
when it is not). Jobs that arrive meanwhile run in one transaction, each behind a savepoint of its own, and share the
next commit; a job alone is committed at once. Nothing is answered before its commit.
"""

import asyncio
import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from outgate.clock import monotonic_s
from outgate.store.errors import StoreBusyError, explain_database_error
from outgate.store.transact import Job, transact

T = TypeVar("T")

BATCH_MAX: Final = 128
"""Jobs in one commit: some 50 ms of work, so that no answer waits for long on those behind it."""
QUEUED_S_MAX: Final = 5.0
"""A job that waited this long is refused: its client has given up or soon will."""


class Runner(Protocol):
    """Runs jobs off the event loop."""

    async def run(self, job: Job[T]) -> T:
        """What ``job`` returns, once it is committed."""
        ...

    def close(self) -> None:
        """Finish what was given, then end."""
        ...


class PooledThreads:
    """One transaction for each job, on a few threads."""

    def __init__(self, engine: Engine, threads_max: int, name: str) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix=name)

    async def run(self, job: Job[T]) -> T:
        """What ``job`` returns, once it is committed."""
        loop = asyncio.get_running_loop()
        deadline_s = monotonic_s() + QUEUED_S_MAX
        return await loop.run_in_executor(self._threads, partial(_transact_in_time, self._engine, job, deadline_s))

    def close(self) -> None:
        """Finish what was given, then end."""
        self._threads.shutdown()


def _transact_in_time(engine: Engine, job: Job[T], deadline_s: float) -> T:
    if monotonic_s() > deadline_s:
        raise _overloaded()
    return transact(engine, job)


@dataclass(slots=True)
class _Order:
    """One job on its way through the batch thread, and what became of it."""

    job: Job[Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    deadline_s: float
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Answer, on the loop's thread. A future that was cancelled meanwhile wants no answer."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class BatchThread:
    """One thread, one transaction at a time, as many jobs in it as wait."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._queue: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._is_started = False

    async def run(self, job: Job[T]) -> T:
        """What ``job`` returns, once it is committed."""
        # Not before it is needed: a process gives up privileges while it has one thread.
        if not self._is_started:
            self._is_started = True
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Order(job, loop, future, monotonic_s() + QUEUED_S_MAX))
        return await future

    def close(self) -> None:
        """Finish what was given, then end."""
        if self._is_started:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            try:
                with self._engine.begin() as connection:
                    is_open = self._fill(connection, batch)
            except Exception as error:  # noqa: BLE001 - whatever ends the transaction ends it for every job in it
                explained = _explained(error)
                if isinstance(explained, StoreBusyError):
                    # Another process holds the lock. Those behind would wait for it again, one after the other.
                    batch.extend(self._drain())
                for order in batch:
                    order.error = explained
            _settle(batch)

    def _fill(self, connection: Connection, batch: list[_Order]) -> bool:
        """Run the first of ``batch`` and what waits behind it; False when the writer is to end."""
        _run_in_savepoint(connection, batch[0])
        while len(batch) < BATCH_MAX and not self._queue.empty():
            order = self._queue.get()
            if order is None:
                return False
            batch.append(order)
            _run_in_savepoint(connection, order)
        return True

    def _drain(self) -> list[_Order]:
        drained: list[_Order] = []
        while not self._queue.empty():
            order = self._queue.get()
            if order is None:
                self._queue.put(None)
                break
            drained.append(order)
        return drained


def _run_in_savepoint(connection: Connection, order: _Order) -> None:
    """Run one job; what it raises is its own, unless the database gave up the whole transaction."""
    if monotonic_s() > order.deadline_s:
        order.error = _overloaded()
        return
    raw = _raw(connection)
    raw.execute("SAVEPOINT job")
    try:
        order.result = order.job(connection)
    except Exception as error:
        if not raw.in_transaction:
            # SQLite rolls everything back by itself on some errors (disk full, I/O): the jobs before are lost, too.
            raise
        raw.execute("ROLLBACK TO job")
        order.error = _explained(error)
    raw.execute("RELEASE job")


def _raw(connection: Connection) -> sqlite3.Connection:
    # The driver's own connection: SQLAlchemy's savepoints cost ten times as much as SQLite's.
    raw: Any = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - BatchThread is made for SQLite engines only
    return raw


def _explained(error: Exception) -> Exception:
    if not isinstance(error, DBAPIError):
        return error
    explained = explain_database_error(error)
    explained.__cause__ = error
    return explained


def _settle(batch: list[_Order]) -> None:
    """Answer all jobs of a batch, in one step for each loop they came from."""
    for loop in {id(order.loop): order.loop for order in batch}.values():
        orders = [order for order in batch if order.loop is loop]
        # A loop that was closed meanwhile has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_on_loop, orders)


def _settle_on_loop(orders: list[_Order]) -> None:
    for order in orders:
        order.settle()


def _overloaded() -> StoreBusyError:
    return StoreBusyError("The database is overloaded; try again in a moment.")
