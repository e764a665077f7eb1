"""Whether policies are enforced right now, and what is wrong if not."""

from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.hosts import find_wanted
from outgate.control.services import Services
from outgate.model.desired import HostWarning
from outgate.store.errors import StoreError
from outgate.store.hosts import HostRow, list_hosts

SHARED_GRACE_MS_MAX: Final = 40_000
"""A host that another api process serves stores a sign of life at least every 25 s (its longest request)."""

FRONT_DOWN: Final = "tunnel_front_down"
"""The code of the one warning that the api raises itself (docs/warnings.md)."""
_WARNINGS: Final = msgspec.json.Decoder(tuple[HostWarning, ...])


@dataclass(frozen=True, slots=True)
class HostHealth:
    """One host: ``problem`` is a sentence, or None when it enforces.

    ``wanted`` and ``enforced`` are desired-state revisions: what concerns it, and what is in force on it. ``seen_ms``
    is when it was last heard of (Unix milliseconds, stored every few seconds; 0: never).
    """

    name: str
    problem: str | None
    warnings: tuple[HostWarning, ...]
    wanted: int = 0
    enforced: int = 0
    seen_ms: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """All hosts. ``problem`` says why nothing can be enforced, or is None when at least one host enforces."""

    problem: str | None
    hosts: tuple[HostHealth, ...] = ()


async def observe_health(services: Services, now_ms: int) -> Health:
    """The state of the store and of each host."""
    try:
        rows, wanted = await services.database.read(lambda tx: _read_hosts(tx, services))
    except StoreError as error:
        return Health(error.message)
    hosts = tuple(_observe_host(services, row, wanted[row.id], now_ms) for row in rows)
    if not hosts:
        return Health("There is no host yet; start an agent.")
    if all(host.problem is not None for host in hosts):
        return Health(f"No host enforces: {hosts[0].problem}", hosts)
    return Health(None, hosts)


def _read_hosts(tx: Connection, services: Services) -> tuple[list[HostRow], dict[str, int]]:
    """All hosts, and which revision each should enforce by now."""
    rows = list_hosts(tx)
    return rows, {row.id: find_wanted(tx, row.id, enforced=_enforced(services, row)) for row in rows}


def _enforced(services: Services, row: HostRow) -> int:
    heard = services.presence.enforced(row.id)
    return row.enforced if heard is None else heard


def _observe_host(services: Services, row: HostRow, wanted: int, now_ms: int) -> HostHealth:
    warnings = _WARNINGS.decode(row.warnings)
    if _lacks_front(services, row):
        text = "The tunnel front is not connected; tunnels do not answer until it is, and it is being started again."
        warnings += (HostWarning(FRONT_DOWN, text),)
    problem = _find_problem(services, row, now_ms)
    return HostHealth(row.name, problem, warnings, wanted, _enforced(services, row), row.seen_time_ms)


def _lacks_front(services: Services, row: HostRow) -> bool:
    """Whether the host's front is missed. Where api processes share a store, it may ask another one."""
    if services.settings.context.tunnel_domain is None or services.database.is_shared:
        return False
    return not services.fronts.is_present(row.id, monotonic_s())


def _find_problem(services: Services, row: HostRow, now_ms: int) -> str | None:
    is_present = services.presence.is_present(row.id, monotonic_s())
    is_present_elsewhere = services.database.is_shared and now_ms - row.seen_time_ms <= SHARED_GRACE_MS_MAX
    if not (is_present or is_present_elsewhere):
        return f"the agent of host {row.name!r} is not connected"
    if not row.ready:
        return f"the agent of host {row.name!r} does not enforce yet"
    return None
