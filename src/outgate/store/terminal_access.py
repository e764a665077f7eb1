"""What opens terminals: SSH keys and PTY tunnels, each of one devbox."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, insert, select

from outgate.store.tables import devboxes
from outgate.store.terminal_tables import pty_tunnels, ssh_keys


@dataclass(frozen=True, slots=True)
class SshKeyRow:
    """One SSH key. ``digest`` is the SHA-256 of its public part."""

    digest: bytes
    account_id: str
    devbox_id: str
    create_time_ms: int


@dataclass(frozen=True, slots=True)
class PtyTunnelRow:
    """One PTY tunnel. ``digest`` is the SHA-256 of its token."""

    key: str
    account_id: str
    devbox_id: str
    digest: bytes
    create_time_ms: int


_KEY_FIELDS: Final = tuple(SshKeyRow.__dataclass_fields__)
_TUNNEL_FIELDS: Final = tuple(PtyTunnelRow.__dataclass_fields__)
_KEY: Final = select(*(ssh_keys.c[name] for name in _KEY_FIELDS)).where(ssh_keys.c.digest == bindparam("digest"))
_TUNNEL: Final = select(*(pty_tunnels.c[name] for name in _TUNNEL_FIELDS)).where(pty_tunnels.c.key == bindparam("key"))


def insert_ssh_key(connection: Connection, row: SshKeyRow, *, keep_max: int) -> None:
    """Store a new key. Of the devbox's keys the newest ``keep_max`` stay."""
    connection.execute(insert(ssh_keys), {name: getattr(row, name) for name in _KEY_FIELDS})
    _forget_oldest(connection, ssh_keys, ssh_keys.c.digest, row.devbox_id, keep_max)


def find_ssh_key(connection: Connection, digest: bytes) -> SshKeyRow | None:
    """The key whose public part has this digest."""
    row = connection.execute(_KEY, {"digest": digest}).one_or_none()
    return None if row is None else SshKeyRow(*row)


def insert_pty_tunnel(connection: Connection, row: PtyTunnelRow, *, keep_max: int) -> None:
    """Store a new tunnel. Of the devbox's PTY tunnels the newest ``keep_max`` stay."""
    connection.execute(insert(pty_tunnels), {name: getattr(row, name) for name in _TUNNEL_FIELDS})
    _forget_oldest(connection, pty_tunnels, pty_tunnels.c.key, row.devbox_id, keep_max)


def find_pty_tunnel(connection: Connection, key: str) -> PtyTunnelRow | None:
    """The PTY tunnel of that key."""
    row = connection.execute(_TUNNEL, {"key": key}).one_or_none()
    return None if row is None else PtyTunnelRow(*row)


def forget_access_to_ended(connection: Connection, *, limit: int) -> int:
    """Forget at most ``limit`` keys, and as many tunnels, of devboxes that have ended; how many they were."""
    return sum(_forget_ended(connection, table, key, limit) for table, key in _BY_TABLE)


_BY_TABLE: Final = ((ssh_keys, ssh_keys.c.digest), (pty_tunnels, pty_tunnels.c.key))


def _forget_ended(connection: Connection, table: Table, key: Any, limit: int) -> int:
    # Any: the columns of two tables, one of bytes and one of text.
    ended = (
        select(key)
        .join(devboxes, devboxes.c.id == table.c.devbox_id)
        .where(devboxes.c.end_time_ms.is_not(None))
        .limit(limit)
    )
    return connection.execute(delete(table).where(key.in_(ended))).rowcount


def _forget_oldest(connection: Connection, table: Table, key: Any, devbox_id: str, keep_max: int) -> None:
    own = table.c.devbox_id == devbox_id
    newest = select(key).where(own).order_by(table.c.create_time_ms.desc(), key).limit(keep_max)
    kept = [row[0] for row in connection.execute(newest)]
    connection.execute(delete(table).where(own, key.not_in(kept)))
