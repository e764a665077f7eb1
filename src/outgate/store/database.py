"""Transactions, off the event loop: one function in, one transaction, its value out."""

from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Engine

from outgate.store.engine import READERS_MAX, Engines, open_engines
from outgate.store.errors import StoreBusyError
from outgate.store.threads import BatchThread, PooledThreads, Runner
from outgate.store.transact import Job, transact

T = TypeVar("T")

PENDING_MAX: Final = 2000
"""Transactions waiting for a thread; at 1,000 a second this is the two seconds a client may have to wait."""


class Database:
    """The store's connections and the threads that use them.

    ``read`` and ``write`` run a function in one transaction on a worker thread; the function gets an open
    connection and must not keep it. When the function raises, nothing is kept. They raise StoreBusyError,
    StoreFullError or StoreError when the database does.
    """

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._reader = PooledThreads(engines.reader, READERS_MAX, "store-read")
        self._writer: Runner = (
            PooledThreads(engines.writer, engines.writers_max, "store-write")
            if engines.is_shared
            else BatchThread(engines.writer, "store-write")
        )
        self._pending = 0

    @classmethod
    def open(cls, url: str) -> Self:
        """The database at ``url``. Raises SettingError for a URL that cannot be used."""
        return cls(open_engines(url))

    @property
    def is_shared(self) -> bool:
        """Whether other api processes may write to it, so that their changes must be polled for."""
        return self._engines.is_shared

    @property
    def writer(self) -> Engine:
        """The engine for migrations, which manage their own transactions."""
        return self._engines.writer

    async def read(self, job: Job[T]) -> T:
        """What ``job`` returns, from one read-only snapshot."""
        return await self._run(self._reader, job)

    async def write(self, job: Job[T]) -> T:
        """What ``job`` returns, after its transaction is committed and on disk."""
        return await self._run(self._writer, job)

    def read_now(self, job: Job[T]) -> T:
        """Like :meth:`read`, on the calling thread; for programs without an event loop."""
        return transact(self._engines.reader, job)

    def write_now(self, job: Job[T]) -> T:
        """Like :meth:`write`, on the calling thread; for programs without an event loop."""
        return transact(self._engines.writer, job)

    async def _run(self, threads: Runner, job: Job[T]) -> T:
        if self._pending >= PENDING_MAX:
            raise StoreBusyError(f"{PENDING_MAX} requests already wait for the database; try again in a moment.")
        self._pending += 1
        try:
            return await threads.run(job)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Finish what runs and close all connections."""
        self._reader.close()
        self._writer.close()
        self._engines.reader.dispose()
        self._engines.writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
