"""What a caller says about a tunnel, and the tunnel it becomes."""

import secrets
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.errors import InvalidValueError
from outgate.model.names import DomainName
from outgate.model.tunnels import KEY_RANDOM_BYTES, TunnelAuthMode, TunnelDocument, make_tunnel_key
from outgate.store.devboxes import DevboxRow
from outgate.store.tunnels import TunnelRow, insert_tunnel

TOKEN_BYTES: Final = 32
_SETTING: Final = "OUTGATE_TUNNEL_DOMAIN"
_TUNNEL: Final = msgspec.json.Decoder(TunnelDocument)


@dataclass(frozen=True, slots=True)
class TunnelInput:
    """A tunnel as asked for. None takes the default: open, kept alive by requests, not woken by them."""

    auth_mode: TunnelAuthMode | None = None
    http_keep_alive: bool | None = None
    wake_on_http: bool | None = None


def decode_tunnel(text: str) -> TunnelDocument:
    """A stored document."""
    return _TUNNEL.decode(text)


def check_tunnels_served(domain: DomainName | None, *, field: str | None = None) -> None:
    """Raise InvalidValueError unless this server has a domain for tunnels."""
    if domain is None:
        message = f"This server has no tunnels: its operator has to set {_SETTING}, for example tunnel.example.com."
        raise InvalidValueError(message, field=field, code="tunnels_off")


def add_tunnel(tx: Connection, row: DevboxRow, given: TunnelInput, *, seq: int, now_ms: int) -> DevboxRow:
    """Give the devbox (stored, without a tunnel) one; the row with it. Its ``seq`` is the transaction's."""
    mode = given.auth_mode or TunnelAuthMode.OPEN
    document = TunnelDocument(
        tunnel_key=make_tunnel_key(row.account_id, secrets.token_bytes(KEY_RANDOM_BYTES)),
        auth_mode=mode,
        create_time_ms=now_ms,
        http_keep_alive=given.http_keep_alive is not False,
        wake_on_http=given.wake_on_http is True,
        auth_token=secrets.token_urlsafe(TOKEN_BYTES) if mode is TunnelAuthMode.AUTHENTICATED else None,
    )
    text = msgspec.json.encode(document).decode()
    insert_tunnel(tx, TunnelRow(document.tunnel_key, row.id, text), seq=seq)
    return replace(row, tunnel=text)
