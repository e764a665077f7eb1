"""Whether policies are enforced right now, and what is wrong if not."""

from dataclasses import dataclass
from typing import Final

import msgspec

from outgate.clock import monotonic_s
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
    """One host: ``problem`` is a sentence, or None when it enforces."""

    name: str
    problem: str | None
    warnings: tuple[HostWarning, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """All hosts. ``problem`` says why nothing can be enforced, or is None when at least one host enforces."""

    problem: str | None
    hosts: tuple[HostHealth, ...] = ()


async def observe_health(services: Services, now_ms: int) -> Health:
    """The state of the store and of each host."""
    try:
        rows = await services.database.read(list_hosts)
    except StoreError as error:
        return Health(error.message)
    hosts = tuple(_observe_host(services, row, now_ms) for row in rows)
    if not hosts:
        return Health("There is no host yet; start an agent.")
    if all(host.problem is not None for host in hosts):
        return Health(f"No host enforces: {hosts[0].problem}", hosts)
    return Health(None, hosts)


def _observe_host(services: Services, row: HostRow, now_ms: int) -> HostHealth:
    warnings = _WARNINGS.decode(row.warnings)
    if _lacks_front(services, row):
        text = "The tunnel front is not connected; tunnels do not answer until it is, and it is being started again."
        warnings += (HostWarning(FRONT_DOWN, text),)
    return HostHealth(row.name, _find_problem(services, row, now_ms), warnings)


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
