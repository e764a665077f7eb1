"""Tunnels: which devboxes have one, and what the hosts' fronts must hear of them."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update

from outgate.store.tables import devboxes
from outgate.store.tunnel_tables import tunnels


@dataclass(frozen=True, slots=True)
class TunnelRow:
    """One tunnel. ``document`` is the JSON of a TunnelDocument."""

    key: str
    devbox_id: str
    document: str


@dataclass(frozen=True, slots=True)
class HostTunnel:
    """A tunnel as its host's front must hear of it. ``is_gone``: it was removed, or its devbox ended."""

    key: str
    devbox_id: str
    account_id: str
    document: str
    is_gone: bool


_LIVE: Final = and_(tunnels.c.remove_time_ms.is_(None), devboxes.c.end_time_ms.is_(None))
_BY_DEVBOX: Final = select(tunnels.c.key, tunnels.c.devbox_id, tunnels.c.document).where(
    tunnels.c.devbox_id == bindparam("devbox_id"), tunnels.c.remove_time_ms.is_(None)
)
_OF_HOST: Final = (
    select(tunnels.c.key, tunnels.c.devbox_id, devboxes.c.account_id, tunnels.c.document, _LIVE.label("is_live"))
    .join(devboxes, devboxes.c.id == tunnels.c.devbox_id)
    .where(devboxes.c.host_id == bindparam("host_id"))
)
_ALL_OF_HOST: Final = _OF_HOST.where(_LIVE)
# The end of a devbox takes a new place in the sequence, so its tunnel is among those that changed.
_CHANGED: Final = _OF_HOST.where(or_(tunnels.c.seq > bindparam("after"), devboxes.c.seq > bindparam("after")))
_LIVE_OF_HOST: Final = _ALL_OF_HOST.where(tunnels.c.key.in_(bindparam("keys", expanding=True)))
_REMOVE: Final = (
    update(tunnels)
    .where(tunnels.c.key == bindparam("tunnel_key"))
    .values(remove_time_ms=bindparam("now_ms"), seq=bindparam("new_seq"))
)


def insert_tunnel(connection: Connection, row: TunnelRow, *, seq: int) -> None:
    """Store a new tunnel."""
    values = {"key": row.key, "devbox_id": row.devbox_id, "document": row.document, "seq": seq}
    connection.execute(insert(tunnels), values)


def find_tunnel(connection: Connection, devbox_id: str) -> TunnelRow | None:
    """The devbox's tunnel, if it has one."""
    row = connection.execute(_BY_DEVBOX, {"devbox_id": devbox_id}).one_or_none()
    return None if row is None else TunnelRow(*row)


def remove_tunnel(connection: Connection, key: str, *, now_ms: int, seq: int) -> None:
    """Mark a tunnel as removed."""
    connection.execute(_REMOVE, {"tunnel_key": key, "now_ms": now_ms, "new_seq": seq})


def list_host_tunnels(connection: Connection, host_id: str, *, after: int | None) -> list[HostTunnel]:
    """The tunnels of the host's devboxes that may have changed after ``after``; all there are when None."""
    if after is None:
        rows = connection.execute(_ALL_OF_HOST, {"host_id": host_id})
    else:
        rows = connection.execute(_CHANGED, {"host_id": host_id, "after": after})
    return [HostTunnel(row[0], row[1], row[2], row[3], is_gone=not row[4]) for row in rows]


def find_host_tunnels(connection: Connection, host_id: str, keys: list[str]) -> list[HostTunnel]:
    """Those of ``keys`` that are live tunnels of the host's devboxes."""
    rows = connection.execute(_LIVE_OF_HOST, {"host_id": host_id, "keys": keys})
    return [HostTunnel(row[0], row[1], row[2], row[3], is_gone=False) for row in rows]
