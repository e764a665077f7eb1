"""One try of one delivery: a POST to an address that was checked, by a name that somebody else chose.

The name is resolved once and the connection goes to the very address that was judged, with the name in SNI, in the
certificate's check and in Host, so that a second answer of its name server means nothing. Redirects are not followed,
proxies of the environment not asked, and connections not kept: one to an address would serve any name that shares it.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import httpx

from outgate.client.lookups import SystemLookups
from outgate.core.webhook_addresses import refuse_receiver
from outgate.errors import OutgateError
from outgate.model.addresses import IPAddress
from outgate.model.webhooks import WebhookTarget

TRY_S_MAX: Final = 10.0
"""For all of a try: lookup, connection, request and answer."""
_CONNECT_S_MAX: Final = 4.0
"""For one of several addresses, so that a second one has its turn."""
_ADDRESSES_MAX: Final = 3
_ANSWER_BYTES_MAX: Final = 64 * 1024
"""Nothing is done with an answer's body; it is read so that receivers are not cut off while they write it."""
_ERROR_LENGTH_MAX: Final = 200
_DISCARD_PORT: Final = 9
_NOBODYS4: Final = IPv4Address("192.0.2.1")
_NOBODYS6: Final = IPv6Address("2001:db8::1")
"""Of documentation (RFC 5737, RFC 3849): no machine has them."""

Lookup = Callable[[str, int], Awaitable[Sequence[IPAddress]]]


class NotDeliveredError(OutgateError):
    """No answer came; the message says why."""

    code = "not_delivered"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said. ``retry_after`` is its header, as it is."""

    status: int
    retry_after: str | None


class WebhookPoster:
    """Delivers. ``networks``: special addresses that the operator opened; ``tls``: how certificates are checked."""

    def __init__(
        self,
        networks: Sequence[IPv4Network | IPv6Network],
        *,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
        try_s_max: float = TRY_S_MAX,
    ) -> None:
        """Nothing is opened yet. Without ``tls``: the system's authorities, read at the first use."""
        self._networks = networks
        self._tls = tls
        self._try_s_max = try_s_max
        self._lookup = lookup or SystemLookups()

    async def post(self, target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> Answer:
        """The receiver's answer to one POST. Raises NotDeliveredError."""
        try:
            async with asyncio.timeout(self._try_s_max):
                return await self._post(target, headers, body)
        except (TimeoutError, httpx.TimeoutException):
            raise NotDeliveredError(f"{target.authority} did not answer within {self._try_s_max:g} s") from None
        except httpx.ConnectError as error:
            raise NotDeliveredError(f"no connection to {target.authority}: {_say(error)}") from None
        except (httpx.HTTPError, OSError) as error:
            raise NotDeliveredError(f"{target.authority} broke off: {_say(error)}") from None

    async def _post(self, target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> Answer:
        addresses = await self._find_addresses(target)
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        for address in addresses[:-1]:
            try:
                return await self._post_to(address, target, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nothing was sent yet, so that trying another address delivers nothing twice.
                continue
        return await self._post_to(addresses[-1], target, headers, body)

    async def _find_addresses(self, target: WebhookTarget) -> Sequence[IPAddress]:
        """Where to connect to: a few of the host's addresses that may be, one at least. Raises NotDeliveredError."""
        host = target.host
        if isinstance(host, str):
            try:
                found = await self._lookup(host, target.port)
            except OSError as error:
                raise NotDeliveredError(f"{host} cannot be looked up: {_say(error)}") from None
        else:
            found = (host,)
        judged = {one: refuse_receiver(one, self._networks, is_own=is_own_address(one)) for one in found}
        allowed = [address for address, reason in judged.items() if reason is None]
        if allowed:
            return allowed[:_ADDRESSES_MAX]
        if not judged:
            raise NotDeliveredError(f"{host} has no address")
        raise NotDeliveredError(refusal(str(host), next(reason for reason in judged.values() if reason is not None)))

    async def _post_to(
        self, address: IPAddress, target: WebhookTarget, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        assert self._tls is not None  # noqa: S101 - _post made it
        url = httpx.URL(scheme=target.scheme, host=str(address), port=target.port, raw_path=target.path.encode("ascii"))
        timeout = httpx.Timeout(self._try_s_max, connect=min(_CONNECT_S_MAX, self._try_s_max))
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client:
            request = client.build_request(
                "POST",
                url,
                content=body,
                headers={**headers, "host": target.authority, "accept-encoding": "identity", "connection": "close"},
                extensions={"sni_hostname": str(target.host)},
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                size = 0
                async for piece in answer.aiter_raw():
                    size += len(piece)
                    if size > _ANSWER_BYTES_MAX:
                        break
            finally:
                await answer.aclose()
            return Answer(answer.status_code, answer.headers.get("retry-after"))


def refusal(host: str, reason: str) -> str:
    """Why nothing is delivered to a host whose addresses are of that class of the floor, and what would change it."""
    kind = reason.removeprefix("floor_").replace("_", " ")
    return (
        f"{host} is at an address that webhooks may not reach ({kind}); use a public one, or have the operator list"
        " its network in OUTGATE_WEBHOOK_NETWORKS"
    )


def is_own_address(address: IPAddress) -> bool:
    """Whether the address is one of this machine's own. Nothing is sent."""
    if not _can_bind(_NOBODYS6 if isinstance(address, IPv6Address) else _NOBODYS4):
        return _can_bind(address)
    # With net.ipv4.ip_nonlocal_bind any address can be bound. The kernel gives a flow to a local address that very
    # address as its source, or, for a second one of a subnet (fib_add_ifaddr), the first: all that can be told then.
    with _make_probe(address) as probe:
        try:
            probe.connect((str(address), _DISCARD_PORT))
            return ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
        except OSError:
            return False


def _can_bind(address: IPAddress) -> bool:
    with _make_probe(address) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
        return True


def _make_probe(address: IPAddress) -> socket.socket:
    return socket.socket(socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET, socket.SOCK_DGRAM)


def _say(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "".join(character if character.isprintable() else " " for character in text)[:_ERROR_LENGTH_MAX]
