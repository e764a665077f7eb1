"""Transactions on behalf of a caller: the key is checked inside, so a revoked one does nothing more, at once."""

from typing import TypeVar

from sqlalchemy import Connection

from outgate.clock import wall_ms
from outgate.control.authentication import unknown_key
from outgate.control.callers import Caller
from outgate.control.services import Services
from outgate.store.accounts import is_key_live
from outgate.store.transact import Job

T = TypeVar("T")


async def read_as(services: Services, caller: Caller, job: Job[T]) -> T:
    """What ``job`` returns, from one snapshot. Raises UnauthorizedError when the caller's key is not valid any more."""
    return await services.database.read(_checked(caller, job))


async def write_as(services: Services, caller: Caller, job: Job[T]) -> T:
    """What ``job`` returns, committed. Raises UnauthorizedError when the caller's key is not valid any more."""
    return await services.database.write(_checked(caller, job))


def _checked(caller: Caller, job: Job[T]) -> Job[T]:
    def check_first(tx: Connection) -> T:
        if not is_key_live(tx, caller.key_id, now_ms=wall_ms()):
            raise unknown_key()
        return job(tx)

    return check_first
