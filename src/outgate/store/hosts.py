"""Hosts: what runs an agent, what it last said of itself."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from outgate.store.tables import devboxes, hosts


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host. ``warnings`` is the JSON of a list of HostWarning; ``enforced`` the sequence in force on it.

    ``architecture`` (as uname(2) has it), ``cpu_cores`` and ``memory_mib`` are None until the host has said.
    """

    id: str
    name: str
    lookup: str
    digest: bytes
    url: str | None
    boot_id: str | None
    enforced: int
    ready: bool
    warnings: str
    seen_time_ms: int
    architecture: str | None = None
    cpu_cores: int | None = None
    memory_mib: int | None = None


_HOST: Final = select(
    hosts.c.id,
    hosts.c.name,
    hosts.c.lookup,
    hosts.c.digest,
    hosts.c.url,
    hosts.c.boot_id,
    hosts.c.enforced,
    hosts.c.ready,
    hosts.c.warnings,
    hosts.c.seen_time_ms,
    hosts.c.architecture,
    hosts.c.cpu_cores,
    hosts.c.memory_mib,
)
_BY_LOOKUP: Final = _HOST.where(hosts.c.lookup == bindparam("lookup"))
_BY_NAME: Final = _HOST.where(hosts.c.name == bindparam("name"))
_BY_ID: Final = _HOST.where(hosts.c.id == bindparam("id"))
_ALL: Final = _HOST.order_by(hosts.c.id)
_REPORT: Final = (
    update(hosts)
    .where(hosts.c.id == bindparam("host_id"))
    .values(
        url=bindparam("new_url"),
        boot_id=bindparam("new_boot_id"),
        enforced=bindparam("new_enforced"),
        ready=bindparam("new_ready"),
        warnings=bindparam("new_warnings"),
        seen_time_ms=bindparam("now_ms"),
    )
)
_SEEN: Final = update(hosts).where(hosts.c.id == bindparam("host_id")).values(seen_time_ms=bindparam("now_ms"))
_ENFORCED: Final = select(hosts.c.id, hosts.c.enforced).where(hosts.c.id.in_(bindparam("ids", expanding=True)))


def insert_host(connection: Connection, row: HostRow) -> None:
    """Store a new host."""
    connection.execute(
        insert(hosts),
        {
            "id": row.id,
            "name": row.name,
            "lookup": row.lookup,
            "digest": row.digest,
            "url": row.url,
            "boot_id": row.boot_id,
            "enforced": row.enforced,
            "ready": row.ready,
            "warnings": row.warnings,
            "seen_time_ms": row.seen_time_ms,
        },
    )


def replace_host_token(connection: Connection, host_id: str, *, lookup: str, digest: bytes) -> None:
    """Give the host another token; the old one is worth nothing from then on."""
    connection.execute(update(hosts).where(hosts.c.id == host_id).values(lookup=lookup, digest=digest))


def find_hosts(connection: Connection, lookup: str) -> list[HostRow]:
    """The hosts whose token's digest begins with ``lookup``: nearly always none or one."""
    return [_row(row) for row in connection.execute(_BY_LOOKUP, {"lookup": lookup})]


def find_host(connection: Connection, host_id: str) -> HostRow | None:
    """The host of that id."""
    row = connection.execute(_BY_ID, {"id": host_id}).one_or_none()
    return None if row is None else _row(row)


def find_host_by_name(connection: Connection, name: str) -> HostRow | None:
    """The host of that name."""
    row = connection.execute(_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else _row(row)


def list_hosts(connection: Connection) -> list[HostRow]:
    """All hosts, oldest first."""
    return [_row(row) for row in connection.execute(_ALL)]


def store_report(
    connection: Connection,
    host_id: str,
    *,
    url: str,
    boot_id: str,
    enforced: int,
    ready: bool,
    warnings: str,
    now_ms: int,
) -> None:
    """Store what the host says of itself."""
    connection.execute(
        _REPORT,
        {
            "host_id": host_id,
            "new_url": url,
            "new_boot_id": boot_id,
            "new_enforced": enforced,
            "new_ready": ready,
            "new_warnings": warnings,
            "now_ms": now_ms,
        },
    )


def touch_host(connection: Connection, host_id: str, *, now_ms: int) -> None:
    """The host asked for its desired state just now."""
    connection.execute(_SEEN, {"host_id": host_id, "now_ms": now_ms})


def read_enforced(connection: Connection, host_ids: list[str]) -> dict[str, int]:
    """The sequence in force on each of these hosts."""
    return {row[0]: row[1] for row in connection.execute(_ENFORCED, {"ids": host_ids})}


def store_capacity(connection: Connection, host_id: str, *, architecture: str, cpu_cores: int, memory_mib: int) -> None:
    """Store what the host has."""
    values = {"architecture": architecture, "cpu_cores": cpu_cores, "memory_mib": memory_mib}
    connection.execute(update(hosts).where(hosts.c.id == host_id).values(values))


def list_hosts_by_load(connection: Connection) -> list[HostRow]:
    """All hosts in the order in which new devboxes go to them: ready ones first, then by their live devboxes."""
    live = (
        select(func.count())
        .select_from(devboxes)
        .where(devboxes.c.host_id == hosts.c.id, devboxes.c.end_time_ms.is_(None))
        .scalar_subquery()
    )
    return [_row(row) for row in connection.execute(_HOST.order_by(hosts.c.ready.desc(), live, hosts.c.id))]


def _row(row: Any) -> HostRow:
    # Any: SQLAlchemy types rows of up to nine columns only.
    return HostRow(*row)
