"""Which tunnel a request is for, and whether it may use it. Pure, but for looking the tunnel up."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from outgate.front.heads import AUTHORIZATION, OURS, TUNNEL_AUTHORIZATION, TUNNEL_HOST, Headers
from outgate.model.names import DomainName
from outgate.model.tunnels import InsideHello, TunnelRoute, is_key_of_account, parse_tunnel_name

_BEARER: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request may pass. ``without``: headers that are meant for the front, and not for the devbox."""

    route: TunnelRoute
    port: int
    without: frozenset[bytes] = OURS


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not. ``retry_after_s`` and ``wants_token`` say what the answer's headers ask for."""

    status: int
    code: str
    message: str
    retry_after_s: int | None = None
    wants_token: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request names a tunnel that is not in the table. It may be the api's: terminals have keys of their own."""

    name: str
    key: str

    def refuse(self) -> Refused:
        """The answer if it is nobody's."""
        return Refused(404, "tunnel_not_found", f"There is no tunnel {self.name[:100]}.")


@dataclass(frozen=True, slots=True)
class WantsToken:
    """The request may pass if it shows the tunnel's token, which was not looked at yet."""

    route: TunnelRoute
    port: int
    headers: Headers

    @property
    def has_token(self) -> bool:
        """Whether it shows any."""
        return any(self._tokens())

    @property
    def proof(self) -> bytes:
        """What stands for the tokens it shows, and for the tunnel."""
        shown = b"\n".join(token for _, token in self._tokens())
        return hashlib.sha256(self.route.key.encode("ascii") + b"\n" + shown).digest()

    def judge(self) -> Admitted | Refused:
        """Look at it."""
        for header, token in self._tokens():
            if hmac.compare_digest(hashlib.sha256(token).hexdigest(), self.route.token_digest or ""):
                return Admitted(self.route, self.port, without=OURS | {header})
        message = "This tunnel wants its token: send 'X-Runloop-Tunnel-Authorization: Bearer <token>'."
        return Refused(401, "unauthorized", message, wants_token=True)

    def _tokens(self) -> Iterator[tuple[bytes, bytes]]:
        for header in (TUNNEL_AUTHORIZATION, AUTHORIZATION):
            for name, value in self.headers:
                if name == header and value.lower().startswith(_BEARER):
                    yield header, value[len(_BEARER) :].strip()


FindRoute = Callable[[str], TunnelRoute | None]


def admit(
    headers: Iterable[tuple[bytes, bytes]], find: FindRoute, domain: DomainName, inside: InsideHello | None
) -> Admitted | WantsToken | Unknown | Refused:
    """Judge one request. ``inside`` is who sent it, if it came out of a devbox of this host.

    Nothing that the request says of itself makes it an inside one. What the gate allowed a devbox is one name, so a
    request of that devbox for another name is refused here, whichever of its headers spells it.
    """
    listed = [(name.lower(), value) for name, value in headers]
    hosts = [value for name, value in listed if name == TUNNEL_HOST] or [v for name, v in listed if name == b"host"]
    if len(hosts) != 1:
        return Refused(400, "bad_request", "A request needs one Host header, and at most one X-Runloop-Host.")
    name = _host_name(hosts[0])
    if inside is not None and name != inside.name:
        message = f"This connection was opened to {inside.name}; open another for {name[:80]}."
        return Refused(421, "other_tunnel", message)
    said = parse_tunnel_name(name, domain)
    if said is None:
        return Unknown(name, "").refuse()
    route = find(said.key)
    if route is None:
        return Unknown(name, said.key)
    if inside is not None and not _is_as_keyed(route, inside):
        return Refused(403, "tunnel_of_others", f"{name} is a tunnel of another account.")
    return Admitted(route, said.port) if route.token_digest is None else WantsToken(route, said.port, listed)


def _is_as_keyed(route: TunnelRoute, inside: InsideHello) -> bool:
    """Whether the tunnel belongs to the devbox's account exactly if its key says so, which the gate went by."""
    return is_key_of_account(route.key, inside.account_id) is (route.account_id == inside.account_id)


def _host_name(value: bytes) -> str:
    """The host of a Host header (RFC 9110 §7.2) in normal form; IPv6 literals are nobody's tunnel."""
    text = value.decode("latin-1").strip().lower()
    return text.partition(":")[0].removesuffix(".")
