"""Tunnel names, ``{port}-{key}.<tunnel domain>``, and whose tunnel a name is.

A key says of itself to which account it belongs: its last characters are a digest of the account's id and of the
random ones before. So a host can tell an account's own tunnels from others' without knowing any tunnel, and cannot
be asked which exist. Keys are lower case and digits: names are compared without regard to case (RFC 4343).
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from outgate.model.addresses import PORT_MAX
from outgate.model.names import DomainName

KEY_RANDOM_BYTES: Final = 10
"""80 bits: nobody finds a tunnel by trying."""
_RANDOM_LENGTH: Final = 16
_TAG_LENGTH: Final = 8
"""40 bits. Keys are chosen by the api alone, so this has to tell accounts apart, not to withstand forgers."""
_LABEL: Final = re.compile(r"([1-9][0-9]{0,4})-([a-z2-7]{24})\Z", re.ASCII)


class TunnelAuthMode(StrEnum):
    """Who may use a tunnel."""

    OPEN = "open"
    AUTHENTICATED = "authenticated"
    """Whoever shows the tunnel's token."""


@dataclass(frozen=True, slots=True)
class TunnelName:
    """What a tunnel's host name says: which port of which tunnel's devbox."""

    port: int
    key: str


def make_tunnel_key(account_id: str, random: bytes) -> str:
    """The key of a new tunnel of the account, out of ``KEY_RANDOM_BYTES`` random bytes."""
    secret = _encode(random)
    return secret + _tag(account_id, secret)


def is_key_of_account(key: str, account_id: str) -> bool:
    """Whether a tunnel with this key would be one of the account."""
    return key[_RANDOM_LENGTH:] == _tag(account_id, key[:_RANDOM_LENGTH])


def is_below_tunnel_domain(name: DomainName, domain: DomainName | None) -> bool:
    """Whether ``name`` is the tunnel domain or lies below it; never where tunnels are off."""
    return domain is not None and (name == domain or name.endswith(f".{domain}"))


def parse_tunnel_name(name: str, domain: DomainName) -> TunnelName | None:
    """What ``name`` (in normal form) says, or None when it is no tunnel's name."""
    label, _, rest = name.partition(".")
    found = _LABEL.match(label) if rest == domain else None
    if found is None or int(found[1]) > PORT_MAX:
        return None
    return TunnelName(int(found[1]), found[2])


def _encode(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").lower()


def _tag(account_id: str, secret: str) -> str:
    digest = hashlib.sha256(f"outgate tunnel\n{account_id}\n{secret}".encode()).digest()
    return _encode(digest[:KEY_RANDOM_BYTES])[:_TAG_LENGTH]


class TunnelDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tunnel as it is stored. ``auth_token`` is set for authenticated ones."""

    tunnel_key: str
    auth_mode: TunnelAuthMode
    create_time_ms: int
    http_keep_alive: bool = True
    wake_on_http: bool = False
    auth_token: str | None = None


class TunnelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the tunnel front must know of a tunnel. ``token_digest`` is the SHA-256 of its token in hex digits."""

    key: str
    devbox_id: str
    account_id: str
    token_digest: str | None = None
    http_keep_alive: bool = True


class TunnelFeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """api → front: what changed up to ``seq``; everything when ``full``. ``gone``: keys that are no tunnel's now."""

    seq: int
    full: bool
    tunnels: tuple[TunnelRoute, ...] = ()
    gone: tuple[str, ...] = ()


class WakeState(StrEnum):
    """Why a tunnel's devbox does not answer."""

    STARTING = "starting"
    """It is on its way to run, because of this request or of another one."""
    ASLEEP = "asleep"
    """It is suspended, and requests do not wake it."""
    GONE = "gone"
    """There is no such tunnel any more."""


class WakeAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """api → front: what a request to a devbox that does not run should be told."""

    state: WakeState


class ActivityNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """front → api: tunnels that were used since the last note."""

    keys: tuple[str, ...]


class InsideHello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """gate → front, before the first byte of a connection out of a devbox: who it is, and what was allowed.

    ``name`` is the tunnel name that the policy was asked about. ``is_tls``: the bytes that follow are TLS.
    """

    devbox_id: str
    account_id: str
    name: str
    is_tls: bool


INSIDE_LENGTH_BYTES: Final = 2
"""An :class:`InsideHello` comes as JSON behind its length, big-endian."""


class DialStatus(StrEnum):
    """How an attempt to reach a port in a devbox ended."""

    CONNECTED = "connected"
    NOT_RUNNING = "not_running"
    REFUSED = "refused"
    """Nothing listens there, or it does not answer in time."""
    BUSY = "busy"
    """Too many attempts are under way."""


class DialRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Open a TCP connection to ``port`` of the devbox's own loopback address."""

    devbox_id: str
    port: int


class DialAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """With ``connected`` comes the socket. ``detail`` is a few words for the log."""

    status: DialStatus
    detail: str = ""
