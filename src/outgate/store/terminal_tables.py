"""The tables of what opens terminals: SSH keys and PTY tunnels. Neither holds a secret."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, String, Table

from outgate.store.tables import Id, metadata

ssh_keys: Final = Table(
    "ssh_keys",
    metadata,
    # SHA-256 of the public key, as in SSH's own fingerprints.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account_id", Id, nullable=False),
    Column("devbox_id", Id, ForeignKey("devboxes.id"), nullable=False, index=True),
    Column("create_time_ms", BigInteger, nullable=False),
)

pty_tunnels: Final = Table(
    "pty_tunnels",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("account_id", Id, nullable=False),
    Column("devbox_id", Id, ForeignKey("devboxes.id"), nullable=False, index=True),
    # SHA-256 of the tunnel's token.
    Column("digest", LargeBinary(32), nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
)
