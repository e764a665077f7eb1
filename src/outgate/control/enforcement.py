"""Waiting until hosts enforce a change, so that the response can be sent with the change in force."""

from collections.abc import Mapping
from dataclasses import dataclass

from outgate.clock import monotonic_s
from outgate.control.services import Services
from outgate.control.wakeups import Subject, Topic
from outgate.store.hosts import read_enforced


@dataclass(frozen=True, slots=True)
class Enforcement:
    """On how many of the devboxes that use a policy its change is in force."""

    enforced: int
    total: int


async def await_enforcement(services: Services, seq: int, devboxes_by_host: Mapping[str, int]) -> Enforcement:
    """Return when every host in ``devboxes_by_host`` enforces ``seq``, or after the configured wait.

    The agent's report wakes the wait at once when it came to this process. Where api processes share the store, a
    report may have gone to another one; the hosts' rows tell, every ``poll_s``.
    """
    began_s = monotonic_s()
    deadline_s = began_s + services.settings.enforce_wait_s_max
    waiting = set(devboxes_by_host)
    topics = [Topic(Subject.ENFORCED, host_id) for host_id in waiting]
    with services.telemetry.enforcing(), services.wakeups.watch(*topics) as watch:
        while waiting:
            waiting -= await _find_enforcing(services, waiting, seq)
            left_s = deadline_s - monotonic_s()
            if not waiting or left_s <= 0:
                break
            await watch.wait(min(left_s, services.poll_s))
    if waiting:
        services.metrics.updates_late.inc()
    elif devboxes_by_host:
        services.metrics.update_enforced.observe(monotonic_s() - began_s)
    total = sum(devboxes_by_host.values())
    return Enforcement(total - sum(devboxes_by_host[host_id] for host_id in waiting), total)


async def _find_enforcing(services: Services, host_ids: set[str], seq: int) -> set[str]:
    presence = services.presence
    asked = sorted(host_ids) if services.database.is_shared else [h for h in host_ids if presence.enforced(h) is None]
    if asked:
        for host_id, enforced in (await services.database.read(lambda tx: read_enforced(tx, asked))).items():
            presence.set_enforced(host_id, enforced)
    return {host_id for host_id in host_ids if (presence.enforced(host_id) or 0) >= seq}
