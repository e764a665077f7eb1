"""Which of an account's devboxes are about to end for want of a keep-alive or of activity, as it becomes known."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from outgate.clock import monotonic_s, wall_ms
from outgate.control.callers import Caller
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.control.wakeups import Subject, Topic
from outgate.store.devboxes import DueDevbox, list_due_of_account

HORIZON_MS: Final = 60_000
"""How long before it happens an end is told of: time to keep a devbox alive, or to fetch what it holds."""
LOOK_EVERY_S: Final = 5.0
WATCH_S_MAX: Final = 3600.0
"""Clients connect anew; a connection that nobody reads any more does not stay for ever."""
_TOLD_MAX: Final = 1000
"""Devboxes of one account that end in the same minute and are told of; the rest is told when these are gone."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """A devbox and when it ends, Unix milliseconds, unless something happens to it before."""

    devbox_id: str
    deadline_ms: int


async def watch_evictions(services: Services, caller: Caller) -> AsyncGenerator[tuple[Eviction, ...], None]:
    """At once what is pending, maybe nothing; then what becomes so, as it does, for an hour.

    A devbox is told of again when its deadline moves. Raises UnauthorizedError when the key was revoked,
    TooManyWaitsError, and StoppingError when the server stops.
    """
    told: dict[str, int] | None = None
    ends_s = monotonic_s() + WATCH_S_MAX
    # Nobody notifies this topic: a wait ends with its time, or when the server stops.
    topic = Topic(Subject.DEVBOX, caller.account_id)
    with (
        services.waits.hold(caller.account_id, services.settings.waits_max),
        services.wakeups.watch(topic) as watch,
    ):
        while monotonic_s() < ends_s:
            due = await _read_pending(services, caller)
            known = told or {}
            fresh = [devbox for devbox in due if known.get(devbox.id) != devbox.expire_time_ms]
            if fresh or told is None:
                yield tuple(Eviction(devbox.id, devbox.expire_time_ms) for devbox in fresh)
            told = {devbox.id: devbox.expire_time_ms for devbox in due}
            await watch.wait(LOOK_EVERY_S)


async def _read_pending(services: Services, caller: Caller) -> list[DueDevbox]:
    until_ms = wall_ms() + HORIZON_MS
    return await read_as(
        services,
        caller,
        lambda tx: list_due_of_account(tx, caller.account_id, until_ms=until_ms, limit=_TOLD_MAX),
    )
