"""What an operator watches: what is wanted of each host, and how many devboxes there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from outgate.store.blueprint_tables import blueprints
from outgate.store.hosts import HostRow, list_hosts
from outgate.store.tables import devboxes, hosts, policies

_NEWEST_DEVBOX: Final = (
    select(func.max(devboxes.c.seq)).where(devboxes.c.host_id == hosts.c.id).scalar_subquery().label("devbox")
)
_NEWEST_BUILD: Final = (
    select(func.max(blueprints.c.seq)).where(blueprints.c.host_id == hosts.c.id).scalar_subquery().label("build")
)
_NEWEST_CHANGES: Final = select(hosts.c.id, _NEWEST_DEVBOX, _NEWEST_BUILD)
_NEWEST_POLICIES: Final = tuple(
    select(used.c.host_id, func.max(policies.c.seq))
    .join(policies, policies.c.id == used.c.policy_id)
    .where(is_live)
    .group_by(used.c.host_id)
    for used, is_live in (
        (devboxes, devboxes.c.end_time_ms.is_(None)),
        (blueprints, blueprints.c.finish_time_ms.is_(None)),
    )
)
_BY_STATUS: Final = (
    select(devboxes.c.status, func.count()).where(devboxes.c.end_time_ms.is_(None)).group_by(devboxes.c.status)
)


@dataclass(frozen=True, slots=True)
class Installation:
    """Hosts; the newest change that concerns each (0: none); devboxes that have not ended, by status."""

    hosts: tuple[HostRow, ...]
    wanted: Mapping[str, int]
    devboxes: Mapping[str, int]


def read_installation(connection: Connection) -> Installation:
    """All of it, from one snapshot. Its cost grows with the devboxes that live, not with those that ended."""
    wanted = {row.id: max(row.devbox or 0, row.build or 0) for row in connection.execute(_NEWEST_CHANGES)}
    for query in _NEWEST_POLICIES:
        for host_id, seq in connection.execute(query):
            wanted[host_id] = max(wanted[host_id], seq)
    by_status = {row[0]: row[1] for row in connection.execute(_BY_STATUS)}
    return Installation(tuple(list_hosts(connection)), wanted, by_status)
