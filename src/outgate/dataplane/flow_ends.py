"""Which tracked flows end without a packet of theirs: those of nobody, and those whose grant was revoked."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from outgate.dataplane import netns
from outgate.dataplane.conntrack import Conntrack, TrackedFlow
from outgate.dataplane.driver import DevboxLink, RouterState
from outgate.dataplane.elements import live_grants
from outgate.dataplane.layout import NetworkLayout
from outgate.dataplane.rejudge import is_allowed_again
from outgate.dataplane.sock_diag import SockDiag
from outgate.model.addresses import IPAddress, Protocol


def addresses_of(devboxes: Iterable[DevboxLink]) -> frozenset[IPAddress]:
    """All of their addresses."""
    return frozenset(address for devbox in devboxes for address in devbox.addresses)


def is_of_pool(layout: NetworkLayout, address: IPAddress) -> bool:
    """Whether the address is one that devboxes of this instance get."""
    return address in (layout.pool4 if address.version == 4 else layout.pool6)


def find_strangers(flows: Iterable[TrackedFlow], layout: NetworkLayout, state: RouterState) -> frozenset[IPAddress]:
    """Sources whose flows are to be forgotten: addresses that no devbox has, and owners of another policy's grants.

    A slot must not inherit any; and a driver that died after it had moved a devbox to another policy, and before
    it forgot the devbox's flows, left flows under grants that are live for others only.
    """
    known = {layout.gateway4, layout.gateway6, layout.uplink_router4, layout.uplink_router6}
    owners = {address: devbox for devbox in state.devboxes.values() for address in devbox.addresses}
    live = live_grants(state.plans.values())
    doomed: set[IPAddress] = set()
    for flow in flows:
        owner = owners.get(flow.source)
        if owner is None:
            doomed |= {flow.source} - known if is_of_pool(layout, flow.source) else set()
        elif flow.mark in live and flow.mark not in state.plans[owner.policy_number].live:
            doomed |= set(owner.addresses)
    return frozenset(doomed)


def abort_revoked(
    layout: NetworkLayout, namespace: int, state: RouterState, grants: Collection[int], devboxes: Collection[str]
) -> int:
    """Destroy the devboxes' TCP sockets of flows under these grants that are not allowed again; how many there were.

    ``namespace`` is the router's, as a descriptor. It works with sockets of its own. Raises NetlinkError and OSError.
    """
    owners: dict[IPAddress, DevboxLink] = {}
    for devbox in (state.devboxes[name] for name in devboxes if name in state.devboxes):
        owners |= dict.fromkeys(devbox.addresses, devbox)
    doomed: dict[int, list[TrackedFlow]] = defaultdict(list)
    with netns.entered(namespace), Conntrack() as table:
        flows = table.find_by_mark(frozenset(grants))
    for flow in flows:
        owner = owners.get(flow.source)
        if owner is None or flow.protocol != Protocol.TCP:
            continue
        if not is_allowed_again(flow, state.plans[owner.policy_number], state.host_addresses):
            doomed[owner.slot].append(flow)
    return sum(_abort(layout, slot, flows) for slot, flows in doomed.items())


def _abort(layout: NetworkLayout, slot: int, flows: Iterable[TrackedFlow]) -> int:
    with netns.entered(layout.devbox_namespace(slot)), SockDiag() as sockets:
        return sockets.destroy_tcp(
            [(flow.source, flow.source_port, flow.destination, flow.destination_port) for flow in flows]
        )
