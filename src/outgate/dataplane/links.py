"""The links of one instance: devbox namespaces with their veth pairs, and what the router namespace holds.

A devbox's link carries the devbox's id and address as its alias, written last: a link with the right alias is
complete, any other is a leftover. Neighbours are fixed for good on both ends, so that a devbox has nobody to
impersonate and the first packet does not wait. Measured: 1 to 2 ms for one devbox.
"""

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from outgate.dataplane import netns
from outgate.dataplane.driver import DevboxLink
from outgate.dataplane.layout import (
    BOX_LINK,
    BOX_LINK_INDEX,
    FORWARD_MARK,
    FORWARD_RULE_PRIORITY,
    FORWARD_TABLE,
    LINK_INDEX_BASE,
    OWN_RULE_PRIORITY,
    RELAY_RULE_PRIORITY,
    ROUTER_LINK_LOCAL,
    NetworkLayout,
)
from outgate.dataplane.netlink import Message, NetlinkClient, NetlinkError
from outgate.dataplane.rtnetlink import (
    NETLINK_ROUTE,
    RT_TABLE_LOCAL,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTN_LOCAL,
    RTN_UNREACHABLE,
    Link,
    LinkEnd,
    Request,
    Route,
    add_link_rule,
    add_mark_rule,
    add_veth,
    doom_link,
    dump_addresses_payload,
    dump_links_payload,
    dump_neighbours_payload,
    dump_routes_payload,
    link_payload,
    name_link,
    parse_address,
    parse_link,
    parse_neighbour,
    parse_routes,
    raise_link,
    remove_doomed_links,
    set_address,
    set_neighbour,
    set_route,
)
from outgate.dataplane.sysctl import write_sysctls
from outgate.model.addresses import IPAddress

LOOPBACK_INDEX: Final = 1
LOOPBACK: Final = "lo"
_AF_INET, _AF_INET6 = 2, 10
_DEFAULT4: Final = IPv4Network("0.0.0.0/0")
_DEFAULT6: Final = IPv6Network("::/0")
_LINK_LOCAL_PREFIX: Final = 64

# Locally administered addresses (bit 1 of the first byte), the same for a slot whenever it is used.
_ROUTER_SIDE: Final = b"\x02\x6f\x67\x01"
_BOX_SIDE: Final = b"\x02\x6f\x67\x02"


class Rtnetlink(NetlinkClient):
    """Links, addresses, routes and rules of the network namespace the thread is in when this is made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def do(self, requests: Iterable[Request], *, ignoring: frozenset[int] = frozenset()) -> None:
        """Carry out ``requests`` in order; kernel errors in ``ignoring`` are well. Raises NetlinkError."""
        for request in requests:
            try:
                self._socket.request(request.kind, request.flags, request.payload, doing=request.doing)
            except NetlinkError as error:
                if error.errno not in ignoring:
                    raise

    def await_carrier(self, index: int) -> None:
        """Have the kernel notice that the link's other end is up. Raises NetlinkError.

        It notices by itself within a second, and drops packets until then; asking for the link makes it look
        (from Linux 6.8 on; before, a first packet may be lost).
        """
        self._socket.query(RTM_GETLINK, link_payload(index), doing=f"looking at link {index}")

    def links(self) -> list[Link]:
        """Every link."""
        return [parse_link(m) for m in self._socket.dump(RTM_GETLINK, dump_links_payload(), doing="reading links")]

    def address_messages(self) -> list[Message]:
        """Every address, not yet parsed."""
        return self._socket.dump(RTM_GETADDR, dump_addresses_payload(), doing="reading addresses")

    def addresses(self) -> list[tuple[int, IPAddress, int]]:
        """(link index, address, prefix length) of every address."""
        return [parse_address(message) for message in self.address_messages()]

    def route_messages(self) -> list[Message]:
        """Every route of every table, not yet parsed."""
        return self._socket.dump(RTM_GETROUTE, dump_routes_payload(), doing="reading routes")

    def routes(self) -> list[Route]:
        """Every route of every table."""
        return [route for message in self.route_messages() for route in parse_routes(message)]

    def neighbours(self) -> list[tuple[int, IPAddress, bytes]]:
        """(link index, address, hardware address) of every neighbour that is fixed."""
        messages = self._socket.dump(RTM_GETNEIGH, dump_neighbours_payload(), doing="reading neighbours")
        return [found for m in messages if (found := parse_neighbour(m)) is not None]

    def rule_messages(self) -> list[Message]:
        """Every routing rule of both families, not yet parsed."""
        return [
            message
            for family in (_AF_INET, _AF_INET6)
            for message in self._socket.dump(RTM_GETRULE, dump_routes_payload(family), doing="reading rules")
        ]


def router_end(layout: NetworkLayout, slot: int) -> LinkEnd:
    """The router's end of a devbox's link."""
    return LinkEnd(layout.link(slot), LINK_INDEX_BASE + slot, _ROUTER_SIDE + slot.to_bytes(2, "big"))


def box_end(slot: int) -> LinkEnd:
    """The devbox's end of its link."""
    return LinkEnd(BOX_LINK, BOX_LINK_INDEX, _BOX_SIDE + slot.to_bytes(2, "big"))


def link_alias(devbox: DevboxLink) -> str:
    """What is attached to a complete link: whose it is, and which address it was made for."""
    return f"{devbox.devbox_id} {devbox.address4}"


def router_sysctls() -> Mapping[str, str]:
    """Settings of the router namespace: it forwards, it asks nobody, and it denies fast."""
    wanted = {
        "ipv4/ip_forward": "1",
        # Denials are answered at once; what is logged has its own limit per devbox.
        "ipv4/icmp_ratelimit": "0",
        "ipv4/icmp_ratemask": "0",
        "ipv6/icmp/ratelimit": "0",
        # The types under the global limit; empty is not to be had, and 255 is an experiment's (RFC 4443 §2.1).
        "ipv6/icmp/ratemask": "255",
        "netfilter/nf_conntrack_checksum": "1",
        "netfilter/nf_conntrack_tcp_be_liberal": "0",
        # A segment of a flow nobody knows must be seen as NEW: the ruleset resets it, instead of dropping it as
        # invalid, which would leave the program hanging.
        "netfilter/nf_conntrack_tcp_loose": "1",
        # Closed flows do not count against the bound of a devbox, so they must not stay for two minutes.
        "netfilter/nf_conntrack_tcp_timeout_time_wait": "10",
        # What the flow log tells of finished flows; with "2", one that began while nobody listened would never be told.
        "netfilter/nf_conntrack_acct": "1",
        "netfilter/nf_conntrack_timestamp": "1",
        "netfilter/nf_conntrack_events": "1",
        # The relay dials from here, and its own closed connections keep their ports for a minute: with the kernel's
        # defaults, connections a second fell from 15,000 to 2,000 once the ports were used up (measured).
        "ipv4/tcp_tw_reuse": "1",
        "ipv4/ip_local_port_range": "16384 65535",
    }
    for scope in ("all", "default"):
        wanted |= {
            # The ruleset checks sources exactly; rp_filter would only break the relay's local route.
            f"ipv4/conf/{scope}/rp_filter": "0",
            f"ipv4/conf/{scope}/src_valid_mark": "0",
            f"ipv4/conf/{scope}/accept_redirects": "0",
            f"ipv4/conf/{scope}/send_redirects": "0",
            f"ipv4/conf/{scope}/accept_source_route": "0",
            f"ipv4/conf/{scope}/route_localnet": "0",
            f"ipv6/conf/{scope}/accept_redirects": "0",
            f"ipv6/conf/{scope}/accept_ra": "0",
            f"ipv6/conf/{scope}/addr_gen_mode": "1",
            f"ipv6/conf/{scope}/forwarding": "1",
        }
    return wanted


def box_sysctls(*, has_ipv6: bool) -> Mapping[str, str]:
    """Settings of a devbox's namespace, made before its link."""
    return {
        "ipv6/conf/default/accept_ra": "0",
        "ipv6/conf/default/addr_gen_mode": "1",
        "ipv6/conf/default/disable_ipv6": "0" if has_ipv6 else "1",
        # Inside, nobody has privileges over the network: without these neither ping nor a server on port 80 works.
        "ipv4/ping_group_range": "0 2147483647",
        "ipv4/ip_unprivileged_port_start": "0",
    }


def router_requests(layout: NetworkLayout) -> Iterator[Request]:
    """What the router namespace needs besides the uplink. EEXIST is well."""
    yield raise_link(LOOPBACK_INDEX)
    for gateway, pool, family, local in (
        (layout.gateway4, layout.pool4, _AF_INET, _DEFAULT4),
        (layout.gateway6, layout.pool6, _AF_INET6, _DEFAULT6),
    ):
        if family == _AF_INET6 and not layout.has_ipv6:
            continue
        yield set_address(LOOPBACK_INDEX, gateway)
        # Addresses of the pool that nobody has must not go back out by the default route.
        yield set_route(pool, kind=RTN_UNREACHABLE)
        yield set_route(pool, kind=RTN_UNREACHABLE, table=FORWARD_TABLE)
        yield set_route(local, link_index=LOOPBACK_INDEX, table=layout.relay_table, kind=RTN_LOCAL)
        yield add_mark_rule(family, RELAY_RULE_PRIORITY, layout.relay_mark, layout.relay_table)
        yield add_mark_rule(family, FORWARD_RULE_PRIORITY, FORWARD_MARK, FORWARD_TABLE)
        yield add_link_rule(family, OWN_RULE_PRIORITY, LOOPBACK, FORWARD_TABLE)


def create_devbox(router: Rtnetlink, layout: NetworkLayout, devbox: DevboxLink, mtu: int) -> None:
    """Make a devbox's namespace and link, complete. Raises NetlinkError, NamespaceError, SysctlError.

    If it fails nothing is left. Nothing is opened here: the ruleset does not know the link yet.
    """
    namespace = layout.devbox_namespace(devbox.slot)
    near, far = router_end(layout, devbox.slot), box_end(devbox.slot)
    with netns.created(namespace):
        write_sysctls(box_sysctls(has_ipv6=devbox.address6 is not None))
        box = Rtnetlink()
        descriptor = netns.open_own_namespace()
    try:
        router.do([add_veth(near, far, descriptor, mtu)])
        box.do(_box_requests(layout, devbox, near))
        router.await_carrier(near.index)
        router.do(router_side_requests(devbox, near, far))
    except BaseException:
        remove_devboxes(router, layout, (devbox.slot,))
        raise
    finally:
        os.close(descriptor)
        box.close()


def _box_requests(layout: NetworkLayout, devbox: DevboxLink, router_side: LinkEnd) -> Iterator[Request]:
    yield raise_link(LOOPBACK_INDEX)
    yield raise_link(BOX_LINK_INDEX)
    yield set_address(BOX_LINK_INDEX, devbox.address4)
    yield set_neighbour(BOX_LINK_INDEX, layout.gateway4, router_side.hardware_address)
    yield set_route(_DEFAULT4, link_index=BOX_LINK_INDEX, gateway=layout.gateway4)
    if devbox.address6 is not None:
        yield set_address(BOX_LINK_INDEX, devbox.address6)
        # The kernel adds this route too, but from a work queue, and answers that come before are lost.
        own = ip_network(devbox.address6)
        yield set_route(own, link_index=BOX_LINK_INDEX, table=RT_TABLE_LOCAL, kind=RTN_LOCAL)
        yield set_neighbour(BOX_LINK_INDEX, ROUTER_LINK_LOCAL, router_side.hardware_address)
        yield set_route(_DEFAULT6, link_index=BOX_LINK_INDEX, gateway=ROUTER_LINK_LOCAL)


def router_side_requests(devbox: DevboxLink, near: LinkEnd, far: LinkEnd) -> Iterator[Request]:
    """What the router needs on a devbox's link. May be repeated."""
    yield raise_link(near.index)
    if devbox.address6 is not None:
        yield set_address(near.index, ROUTER_LINK_LOCAL, _LINK_LOCAL_PREFIX)
    for address in devbox.addresses:
        yield set_neighbour(near.index, address, far.hardware_address)
        yield set_route(ip_network(address), link_index=near.index)
    yield name_link(near.index, link_alias(devbox))


def remove_devboxes(router: Rtnetlink, layout: NetworkLayout, slots: Collection[int]) -> None:
    """Remove links and namespaces of these slots, as far as they are there. Raises NetlinkError, NamespaceError."""
    if not slots:
        return
    requests = [*(doom_link(layout.link(slot)) for slot in slots), remove_doomed_links()]
    router.do(requests, ignoring=frozenset({errno.ENODEV}))
    for slot in slots:
        netns.remove_namespace(layout.devbox_namespace(slot))
