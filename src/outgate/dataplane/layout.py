"""Names and addresses of one Outgate instance on one host: a pure function of its id and what the host uses.

Everything but the IPv4 pool follows from the instance id alone, so that ``teardown`` finds all of it after a
crash without any state. The pool is chosen once, around the networks the host knows, and then kept
(the agent stores ``str(layout.pool4)`` and gives it back as ``network4``).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from outgate.errors import OutgateError
from outgate.model.addresses import IPAddress

POOLS4: Final = IPv4Network("10.213.0.0/16")
"""Where pools are taken from unless a setting says otherwise."""
POOL4_PREFIX: Final = 20
"""4,096 addresses: more devboxes than links a router namespace handles well (creation slows beyond 1,000)."""
POOL4_PREFIX_MAX: Final = 26
UPLINK_ROUTER: Final = "uplink"
"""The uplink's name in the router namespace."""
BOX_LINK: Final = "eth0"
LINK_INDEX_BASE: Final = 1000
"""Interface index of the link of slot 0 in the router namespace; explicit ones spare a dump to find them."""
UPLINK_INDEX: Final = 999
BOX_LINK_INDEX: Final = 999
"""Not 2: where tunnel modules are loaded, new namespaces come with devices that take the first numbers."""
RELAY_MARK: Final = 0x1
"""Packet mark that routes a packet to the relay. Lives in the router namespace only."""
RELAY_TABLE: Final = 100
"""Routing table, in the router namespace, that delivers marked packets locally."""
RELAY_RULE_PRIORITY: Final = 100
FORWARD_MARK: Final = 0x2
"""Packet mark, set by the table alone, without which nothing of a devbox finds a way out of the router namespace."""
FORWARD_TABLE: Final = 101
"""Routing table, in the router namespace, that alone has the default routes. With the table of rules gone (somebody
flushed it), packets are not marked, find no route, and so stay inside."""
FORWARD_RULE_PRIORITY: Final = 101
OWN_RULE_PRIORITY: Final = 40_000
"""Behind the main table: the router namespace's own packets (the relay's) take the default routes too."""
RELAY_PORT: Final = 15001
"""Where the relay listens (IP_TRANSPARENT, both families) unless the layout says otherwise."""
ROUTER_LINK_LOCAL: Final = IPv6Address("fe80::1")
"""The router on every devbox link: the devboxes' IPv6 default gateway."""

_INSTANCE: Final = re.compile(r"[0-9a-f]{6}\Z")
_RESERVED_FRONT: Final = 2
"""The network address and the gateway."""
_RESERVED_BACK: Final = 4
"""The uplink's /30 at the end of the pool, broadcast address included."""


class NoFreePoolError(OutgateError):
    """Every candidate for the devbox pool overlaps a network the host knows; a setting can name another."""

    code = "no_free_pool"


@dataclass(frozen=True, slots=True)
class NetworkLayout:
    """Names, addresses and marks of one instance. ``has_ipv6`` says whether devboxes get IPv6."""

    instance: str
    pool4: IPv4Network
    pool6: IPv6Network
    has_ipv6: bool = True
    relay_port: int = RELAY_PORT
    relay_mark: int = RELAY_MARK
    relay_table: int = RELAY_TABLE

    @property
    def router_namespace(self) -> str:
        """Name of the router namespace under /run/netns."""
        return f"outgate-{self.instance}"

    @property
    def uplink_host(self) -> str:
        """Name of the uplink on the host."""
        return uplink_host_name(self.instance)

    @property
    def gateway4(self) -> IPv4Address:
        """The devboxes' IPv4 gateway and name server."""
        return self.pool4[1]

    @property
    def gateway6(self) -> IPv6Address:
        """The devboxes' IPv6 name server."""
        return self.pool6[1]

    @property
    def uplink_host4(self) -> IPv4Address:
        """The host's end of the uplink; both ends share a /30."""
        return self.pool4[-3]

    @property
    def uplink_router4(self) -> IPv4Address:
        """The router's end of the uplink."""
        return self.pool4[-2]

    @property
    def uplink_host6(self) -> IPv6Address:
        """The host's end of the uplink; both ends share a /126."""
        return self.pool6[-3]

    @property
    def uplink_router6(self) -> IPv6Address:
        """The router's end of the uplink."""
        return self.pool6[-2]

    @property
    def slots_max(self) -> int:
        """How many devboxes fit: slots are 0 to this, exclusive."""
        return self.pool4.num_addresses - _RESERVED_FRONT - _RESERVED_BACK

    def find_slot(self, address: IPAddress) -> int | None:
        """The slot whose devbox has this address; None when none may."""
        pool = self.pool4 if address.version == 4 else self.pool6
        slot = int(address) - int(pool.network_address) - _RESERVED_FRONT
        return slot if 0 <= slot < self.slots_max else None

    def link(self, slot: int) -> str:
        """The router's end of a devbox's link."""
        return f"og{slot}"

    def devbox_namespace(self, slot: int) -> str:
        """Name of a devbox's network namespace under /run/netns."""
        return f"{self.router_namespace}-{slot}"

    def address4(self, slot: int) -> IPv4Address:
        """A devbox's IPv4 address. Raises ValueError for a slot beyond the pool."""
        if not 0 <= slot < self.slots_max:
            raise ValueError(f"slot {slot} lies outside 0 to {self.slots_max - 1}")
        return self.pool4[_RESERVED_FRONT + slot]

    def address6(self, slot: int) -> IPv6Address | None:
        """A devbox's IPv6 address; None when devboxes have none. Raises ValueError for a slot beyond the pool."""
        if not 0 <= slot < self.slots_max:
            raise ValueError(f"slot {slot} lies outside 0 to {self.slots_max - 1}")
        return self.pool6[_RESERVED_FRONT + slot] if self.has_ipv6 else None


def uplink_host_name(instance: str) -> str:
    """Name of an instance's uplink on the host."""
    return f"ogu{instance}"


def choose_layout(
    instance: str,
    used: Iterable[IPv4Network],
    *,
    network4: IPv4Network | None = None,
    has_ipv6: bool = True,
    relay_port: int = RELAY_PORT,
) -> NetworkLayout:
    """The layout of ``instance`` (six hex digits) on a host that uses the networks ``used``.

    ``network4`` is the pool itself when it is a /20 or smaller (as it was chosen before, or as a setting
    says), else the space to choose a /20 from. Raises :class:`NoFreePoolError`, and ValueError for an
    instance id or network that cannot be.
    """
    if not _INSTANCE.match(instance):
        raise ValueError(f"{instance!r} is not an instance id of six hex digits")
    if network4 is not None and network4.prefixlen > POOL4_PREFIX_MAX:
        raise ValueError(f"{network4} is too small for a pool; it takes a /{POOL4_PREFIX_MAX} or larger")
    is_fixed = network4 is not None and network4.prefixlen >= POOL4_PREFIX
    pool4 = network4 if is_fixed and network4 is not None else _free_pool(instance, network4 or POOLS4, tuple(used))
    return NetworkLayout(instance, pool4, _pool6(instance), has_ipv6=has_ipv6, relay_port=relay_port)


def _free_pool(instance: str, space: IPv4Network, used: tuple[IPv4Network, ...]) -> IPv4Network:
    candidates = tuple(space.subnets(new_prefix=POOL4_PREFIX))
    # Instances begin at different places, so that two that start at the same moment rarely meet.
    start = int(instance, 16) % len(candidates)
    for candidate in candidates[start:] + candidates[:start]:
        if not any(candidate.overlaps(network) for network in used if network.prefixlen > 0):
            return candidate
    raise NoFreePoolError(
        f"Every /{POOL4_PREFIX} in {space} overlaps a network this host has a route to; "
        "set OUTGATE_DEVBOX_NETWORK4 to a private network that is free."
    )


def _pool6(instance: str) -> IPv6Network:
    # RFC 4193 §3.2: 40 pseudo-random bits behind fd00::/8.
    random40 = hashlib.sha256(f"outgate {instance}".encode()).digest()[:5]
    return IPv6Network((b"\xfd" + random40 + bytes(10), 64))
