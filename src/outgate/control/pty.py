"""PTY tunnels: a key and a token that open terminals of one devbox; and the sessions behind them."""

import hashlib
import hmac
import re
import secrets
import signal
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import UnauthorizedError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.secrets_at_rest import KEY_LENGTH_MAX
from outgate.control.services import Services
from outgate.control.terminal_access import TerminalPlace, check_is_running, find_running
from outgate.control.transactions import write_as
from outgate.errors import InvalidValueError
from outgate.model.terminals import SIZE_MAX, TerminalSize
from outgate.model.tunnels import KEY_RANDOM_BYTES, make_tunnel_key
from outgate.store.devboxes import find_devbox_locked
from outgate.store.terminal_access import PtyTunnelRow, find_pty_tunnel, insert_pty_tunnel

TUNNELS_PER_DEVBOX_MAX: Final = 64
"""Clients make one for each connection; of a devbox's PTY tunnels the oldest go first."""
_TOKEN_BYTES: Final = 32
_SESSION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,256}\Z", re.ASCII)
_SIGNAL_PREFIX: Final = "SIG"


@dataclass(frozen=True, slots=True)
class NewPtyTunnel:
    """A PTY tunnel as it is shown once: ``token`` is stored nowhere."""

    key: str
    token: str = field(repr=False)


async def create_pty_tunnel(services: Services, call: Call, devbox_id: str) -> NewPtyTunnel:
    """A new PTY tunnel into the running devbox. Raises NotFoundError, InvalidValueError when it does not run."""
    if not is_id(IdPrefix.DEVBOX, devbox_id):
        raise devbox_not_found(devbox_id)
    made = NewPtyTunnel(
        make_tunnel_key(call.account_id, secrets.token_bytes(KEY_RANDOM_BYTES)), secrets.token_urlsafe(_TOKEN_BYTES)
    )

    def create(tx: Connection) -> None:
        row = find_devbox_locked(tx, call.account_id, devbox_id)
        if row is None:
            raise devbox_not_found(devbox_id)
        check_is_running(row)
        tunnel = PtyTunnelRow(made.key, call.account_id, devbox_id, _digest(made.token), call.now_ms)
        insert_pty_tunnel(tx, tunnel, keep_max=TUNNELS_PER_DEVBOX_MAX)

    await write_as(services, call.caller, create)
    return made


async def find_pty_place(services: Services, key: str, token: str, client: str) -> TerminalPlace:
    """What the PTY tunnel opens, for ``client``, who shows that token.

    Raises UnauthorizedError, TooManyAttemptsError, ConflictError when the devbox does not run, and
    HostUnavailableError.
    """
    if not token:
        raise _unauthorized()
    shown = _digest(token[: KEY_LENGTH_MAX + 1])
    row = await services.terminal_attempts.look(
        client,
        _digest(f"{key}\n{token[: KEY_LENGTH_MAX + 1]}"),
        services.settings.auth_failures_max,
        lambda: services.database.read(lambda tx: _find_tunnel(tx, key, shown)),
    )
    if row is None:
        services.metrics.auth_failures.labels("pty_token").inc()
        raise _unauthorized()
    return await find_running(services, row.account_id, row.devbox_id)


def _unauthorized() -> UnauthorizedError:
    message = (
        "This needs the token of a PTY tunnel: send 'X-Runloop-Tunnel-Authorization: Bearer <auth_token>'"
        " to the host name that has its tunnel_key."
    )
    return UnauthorizedError(message)


def _find_tunnel(tx: Connection, key: str, shown: bytes) -> PtyTunnelRow | None:
    row = find_pty_tunnel(tx, key)
    return row if row is not None and hmac.compare_digest(shown, row.digest) else None


def parse_session_name(text: str) -> str:
    """``text`` as the name of a PTY session. Raises InvalidValueError."""
    if not _SESSION_NAME.match(text):
        message = "A session name is 1 to 256 ASCII letters, digits, '-' and '_'."
        raise InvalidValueError(message, field="session_name")
    return text


def parse_size(cols: int | None, rows: int | None) -> TerminalSize:
    """Both, 1 to 1000. Raises InvalidValueError."""
    for name, value in (("cols", cols), ("rows", rows)):
        if value is None or not 1 <= value <= SIZE_MAX:
            raise InvalidValueError(f"A resize needs cols and rows, 1 to {SIZE_MAX} each.", field=name)
    return TerminalSize(cols or 0, rows or 0)


def find_size(cols: str | None, rows: str | None) -> TerminalSize | None:
    """The size if both are numbers from 1 to 1000; anything else is ignored, as the founding contract has it."""
    if cols is None or rows is None or not (cols.isascii() and cols.isdigit() and rows.isascii() and rows.isdigit()):
        return None
    try:
        return parse_size(int(cols[:5]), int(rows[:5]))
    except InvalidValueError:
        return None


def parse_signal(name: str | None) -> int:
    """The number of a POSIX signal, written with or without ``SIG``. Raises InvalidValueError."""
    wanted = (name or "")[:20]
    full = wanted if wanted.startswith(_SIGNAL_PREFIX) else _SIGNAL_PREFIX + wanted
    try:
        return signal.Signals[full].value
    except KeyError:
        message = f"{wanted!r} is no signal; write a name such as SIGINT, SIGTERM or SIGHUP."
        raise InvalidValueError(message, field="signal") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
