"""What can go wrong below a statement, told apart by the drivers' codes and never by their wording."""

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from outgate.errors import OutgateError


class StoreError(OutgateError):
    """The database failed; nothing of the transaction was kept. Not worth repeating as it is."""

    code = "store_failed"


class StoreFullError(StoreError):
    """The disk (or the database's quota) is full; reads go on."""

    code = "store_full"


class StoreBusyError(StoreError):
    """The database is locked, unreachable or overloaded just now; the same request may succeed soon."""

    code = "store_busy"


class GrantsExhaustedError(StoreError):
    """All 2^31 rule ids were given out. Rule ids are never used twice, so nothing more can be allowed."""

    code = "grants_exhausted"


class RepeatTransactionError(Exception):
    """The transaction lost against another one and would succeed if it were run again from its start."""


# SQLite result codes (https://www.sqlite.org/rescode.html); the low byte is the primary code.
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_PRIMARY_MASK: Final = 0xFF

# PostgreSQL, appendix A: class 08 and 57P are lost connections, 53 is "insufficient resources".
_PG_REPEAT: Final = frozenset({"40001", "40P01"})
_PG_BUSY: Final = frozenset({"55P03", "57014", "53300"})
_PG_FULL: Final = frozenset({"53100"})


def explain_database_error(error: DBAPIError | PoolTimeoutError) -> StoreError | RepeatTransactionError:
    """The error to raise in place of ``error``, from the driver's result code."""
    if isinstance(error, PoolTimeoutError):
        return StoreBusyError("The database has no free connection; try again in a moment.")
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(cause)
    return _explain_postgresql(getattr(cause, "sqlstate", None), is_disconnect=error.connection_invalidated)


def _explain_sqlite(cause: sqlite3.Error) -> StoreError:
    code = getattr(cause, "sqlite_errorcode", 0) & _SQLITE_PRIMARY_MASK
    if code in _SQLITE_BUSY:
        return StoreBusyError("The database is locked by another process; try again in a moment.")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError("The disk that holds the database is full; nothing was changed. Free some space first.")
    name = getattr(cause, "sqlite_errorname", type(cause).__name__)
    return StoreError(f"The database failed ({name}); nothing was changed.")


def _explain_postgresql(state: str | None, *, is_disconnect: bool) -> StoreError | RepeatTransactionError:
    if state in _PG_REPEAT:
        return RepeatTransactionError()
    if state in _PG_FULL:
        return StoreFullError("The disk that holds the database is full; nothing was changed. Free some space first.")
    if state is None or state in _PG_BUSY or state.startswith(("08", "57P")) or is_disconnect:
        return StoreBusyError("The database cannot be reached or is overloaded; try again in a moment.")
    return StoreError(f"The database failed (SQLSTATE {state}); nothing was changed.")
