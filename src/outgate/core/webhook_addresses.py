"""Which addresses the server itself may deliver to: a tenant typed where, so the deny floor holds for it, too."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from outgate.core.decide import floor_class
from outgate.core.ranges import classify, normalise_address
from outgate.model.addresses import IPAddress
from outgate.model.flow import HostContext
from outgate.model.verdict import DenyReason

_OPENABLE: Final = frozenset(
    {
        DenyReason.FLOOR_LOOPBACK,
        DenyReason.FLOOR_HOST,
        DenyReason.FLOOR_PRIVATE,
        DenyReason.FLOOR_SHARED,
        DenyReason.FLOOR_UNIQUE_LOCAL,
        DenyReason.FLOOR_RESERVED,
    }
)
"""What the operator's networks open. Metadata services, link-local addresses and the like stay closed."""


def refuse_receiver(
    address: IPAddress, networks: Iterable[IPv4Network | IPv6Network], *, is_own: bool
) -> DenyReason | None:
    """Why nothing is delivered to ``address``; None when it may be.

    ``networks``: the operator's own, whose special addresses are welcome. One that is wider than the special range
    opens nothing in it: who writes 0.0.0.0/0 does not mean loopback. ``is_own``: the address is one of the server's;
    such a one counts as loopback does, and where it is not loopback it must be listed by itself.
    """
    address = normalise_address(address)
    context = HostContext(host_addresses=frozenset({address}) if is_own else frozenset())
    reason = floor_class(address, context)
    if reason is None or (reason in _OPENABLE and _is_listed(address, reason, networks)):
        return None
    return reason


def _is_listed(address: IPAddress, reason: DenyReason, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    fixed = classify(address)
    for network in networks:
        if address.version != network.version or address not in network:
            continue
        if reason is DenyReason.FLOOR_HOST:
            if network.num_addresses == 1:
                return True
        elif classify(network.network_address) is fixed and classify(network.broadcast_address) is fixed:
            return True
    return False
