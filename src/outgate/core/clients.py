"""Who a client is for limits, and how often it may show a wrong key. Pure: time is an argument."""

import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

CLIENTS_MAX: Final = 10_000
"""Clients whose failures are remembered: some 2 MB. The ones heard of least recently are forgotten first."""
PROOFS_MAX: Final = 10_000
"""Keys remembered as right, each with the client that showed it."""
WINDOW_S: Final = 60.0
LOCAL: Final = "local"
"""Everybody who comes by a unix socket."""
_IPV6_PREFIX: Final = 64
"""What one customer of a provider has at least: of its addresses nobody runs out (RFC 6177)."""

Networks = Collection[IPv4Network | IPv6Network]


def client_of(address: str) -> str:
    """The client behind an address: the IPv4 address, or the /64 of an IPv6 one. Other texts stand for themselves."""
    parsed = _parse(address)
    if parsed is None:
        return address or LOCAL
    return str(ip_network((parsed, _IPV6_PREFIX), strict=False)) if parsed.version == 6 else str(parsed)


def is_loopback(address: str) -> bool:
    """Whether it is an address by which a host speaks to itself."""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


def is_among(address: str, networks: Networks) -> bool:
    """Whether it is an address of one of ``networks``; other texts never are."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def find_client(peer: str, forwarded_for: str, proxies: Networks) -> str:
    """The client of a request that came from ``peer`` with this ``X-Forwarded-For``.

    The header counts only as far as ``proxies`` wrote it: each appends whom it was asked by, so the last address
    that is none of theirs is the client's; what stands before that the client may have made up.
    """
    current = peer
    for hop in reversed(forwarded_for.split(",")):
        said = hop.strip()
        if not is_among(current, proxies) or _parse(said) is None:
            break
        current = said
    return client_of(current)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    """An address without its scope, and an IPv4 one in its own form."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


@dataclass(slots=True)
class _Failures:
    """What is left of a client's failures at ``time_s``; it grows back evenly. ``is_told``: somebody logged it."""

    left: float
    time_s: float
    is_told: bool = False


class AttemptLimit:
    """Wrong keys of each client within the last minute.

    A client that showed too many has to wait, and no key of it is looked at meanwhile, or guessing would go on
    behind the refusals; except those that this client showed before and were right. So whoever else sits behind
    the same address goes on working, and nobody can lock a key out from another address.
    """

    def __init__(self, *, clients_max: int = CLIENTS_MAX, proofs_max: int = PROOFS_MAX) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._proofs: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._clients_max, self._proofs_max = clients_max, proofs_max

    def wait_s(self, client: str, proof: bytes, failures_max: int, now_s: float) -> int:
        """How many seconds the client has to wait before ``proof`` (a digest) is looked at; 0 when it may be now.

        ``failures_max``: wrong ones in a minute; 0 means any number.
        """
        failures = self._failures.get(client)
        if failures is None or not failures_max or (client, proof) in self._proofs:
            return 0
        left = _grown(failures, failures_max, now_s)
        return 0 if left >= 1 else math.ceil((1 - left) * WINDOW_S / failures_max)

    def fail(self, client: str, failures_max: int, now_s: float) -> None:
        """Count a wrong key."""
        if not failures_max:
            return
        failures = self._failures.get(client)
        if failures is None:
            failures = self._failures[client] = _Failures(float(failures_max), now_s)
            if len(self._failures) > self._clients_max:
                self._failures.popitem(last=False)
        self._failures.move_to_end(client)
        left = _grown(failures, failures_max, now_s)
        if left >= failures_max:
            failures.is_told = False  # a minute of peace: the next time is worth another word
        failures.left, failures.time_s = max(0.0, left - 1), now_s

    def is_news(self, client: str) -> bool:
        """Whether the client has to wait now, and nobody asked this since it began."""
        failures = self._failures.get(client)
        if failures is None or failures.left >= 1 or failures.is_told:
            return False
        failures.is_told = True
        return True

    def forgive(self, client: str, failures_max: int) -> None:
        """What was counted as a wrong key, before anybody knew, was none."""
        failures = self._failures.get(client)
        if failures is not None:
            failures.left = min(float(failures_max), failures.left + 1)

    def prove(self, client: str, proof: bytes) -> None:
        """The client showed a right key."""
        self._proofs[client, proof] = None
        self._proofs.move_to_end((client, proof))
        if len(self._proofs) > self._proofs_max:
            self._proofs.popitem(last=False)


def _grown(failures: _Failures, failures_max: int, now_s: float) -> float:
    passed_s = max(0.0, now_s - failures.time_s)
    return min(float(failures_max), failures.left + passed_s * failures_max / WINDOW_S)
