"""One function in one transaction, on the calling thread."""

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from outgate.store.errors import RepeatTransactionError, StoreError, explain_database_error

T = TypeVar("T")
Job = Callable[[Connection], T]
"""Gets an open connection, which it must not keep. When it raises, nothing of it is kept."""

ATTEMPTS_MAX: Final = 5
"""Runs of one transaction that lost against another (deadlock, unique key); more means a defect."""


def transact(engine: Engine, job: Job[T]) -> T:
    """What ``job`` returns, after its transaction is committed. Raises StoreError, or what ``job`` raised."""
    for _ in range(ATTEMPTS_MAX):
        try:
            with engine.begin() as connection:
                return job(connection)
        except IntegrityError:
            # Jobs look for what is in the way before they insert, and say so. A unique key that fires all the
            # same belongs to a transaction that committed in between: looking again finds it.
            continue
        except (DBAPIError, PoolTimeoutError) as error:
            explained = explain_database_error(error)
            if isinstance(explained, RepeatTransactionError):
                continue
            raise explained from error
    raise StoreError(f"The transaction failed {ATTEMPTS_MAX} times against others; nothing was changed.")
