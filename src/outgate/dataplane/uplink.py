"""The host's side of the uplink: one link, one route, forwarding where it is needed, one small nft table.

The table ``inet outgate_uplink`` is shared by all instances of a host: each has its link in the set. It hides the
devboxes behind the host's address and keeps them away from the host itself, whatever the address lists say. The
set ``forwarding`` remembers interfaces where Outgate switched forwarding on, so that the last instance to go
can switch it off again.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from string import Template
from typing import Final

from outgate.dataplane import netns
from outgate.dataplane.layout import FORWARD_TABLE, UPLINK_INDEX, UPLINK_ROUTER, NetworkLayout
from outgate.dataplane.links import Rtnetlink
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.nfnetlink import Nfnetlink
from outgate.dataplane.nft import Nft
from outgate.dataplane.nft_observe import DroppingChain, observe_chains, observe_foreign_drops
from outgate.dataplane.rtnetlink import (
    RT_TABLE_MAIN,
    RTN_UNICAST,
    LinkEnd,
    Request,
    Route,
    add_veth,
    raise_link,
    remove_link,
    set_address,
    set_neighbour,
    set_route,
)
from outgate.dataplane.sysctl import ensure_sysctls, observe_differing, read_sysctl, write_sysctl
from outgate.model.addresses import IPAddress

UPLINK_TABLE: Final = "outgate_uplink"
_LINKS: Final = "links"
_FORWARDING: Final = "forwarding"
_LOCK: Final = Path("/run/outgate-uplink.lock")
_MTU_DEFAULT: Final = 1500
_HOST_END, _ROUTER_END = 1, 2
_PREFIX4: Final = 30
_PREFIX6: Final = 126
_DEFAULT4: Final = IPv4Network("0.0.0.0/0")
_DEFAULT6: Final = IPv6Network("::/0")

_TABLE: Final = Template("""\
add table inet $table
delete table inet $table
table inet $table {
    set $links_set {
        type ifname
$links
    }

    set $forwarding_set {
        type ifname
$forwarding
    }

    chain input {
        type filter hook input priority filter; policy accept;
        iifname != @links accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
        drop
    }

    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        iifname @links masquerade
    }
}
""")


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """Where the host's default routes lead. None: there is none in that family."""

    interface4: str | None
    interface6: str | None
    mtu: int


class HostNetwork:
    """The network namespace the thread is in when this is made, as the host of one instance."""

    def __init__(self) -> None:
        self._namespace = netns.open_own_namespace()
        self._links = Rtnetlink()
        self._netfilter = Nfnetlink()
        self._nft = Nft()
        self._fingerprint: object = None

    def close(self) -> None:
        """Give everything back. May be called twice."""
        self._links.close()
        self._netfilter.close()
        self._nft.close()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def observe_routes(self) -> HostRoutes:
        """The default routes in force: those of the main table with the lowest metric."""
        links = {link.index: link for link in self._links.links()}
        routes = self._links.routes()
        index4, index6 = _default_link(routes, _DEFAULT4), _default_link(routes, _DEFAULT6)
        used = [links[index] for index in (index4, index6) if index in links]
        return HostRoutes(
            interface4=links[index4].name if index4 in links else None,
            interface6=links[index6].name if index6 in links else None,
            mtu=min((link.mtu for link in used), default=_MTU_DEFAULT),
        )

    def observe_networks(self, own_link: str) -> tuple[IPv4Network, ...]:
        """The IPv4 networks the host has routes to, default routes and those over ``own_link`` aside."""
        own = {link.index for link in self._links.links() if link.name == own_link}
        return tuple(
            route.destination
            for route in self._links.routes()
            if isinstance(route.destination, IPv4Network) and route.prefix_length > 0 and route.link_index not in own
        )

    def observe_addresses(self) -> frozenset[IPAddress]:
        """The host's own addresses. (Loopback and link-local ones are always denied and left out.)"""
        return frozenset(
            address
            for _index, address, _length in self._links.addresses()
            if not address.is_loopback and not address.is_link_local
        )

    def observe_foreign_drops(self, link: str) -> tuple[DroppingChain, ...]:
        """Forward chains of others that drop by policy and whose table does not mention ``link``."""
        drops = observe_foreign_drops(self._netfilter, frozenset({UPLINK_TABLE}), link)
        return tuple(drop for drop in drops if not drop.names_link)

    def has_link(self, name: str) -> bool:
        """Whether there is a link of that name."""
        return any(link.name == name for link in self._links.links())

    def ensure_uplink(self, layout: NetworkLayout, router: Rtnetlink, mtu: int) -> None:
        """Make the link to the router namespace, with addresses and routes on both ends. May be repeated."""
        names = {link.name for link in router.links()}
        if layout.uplink_host not in {link.name for link in self._links.links()} or UPLINK_ROUTER not in names:
            self._links.do([remove_link(layout.uplink_host)], ignoring=frozenset({errno.ENODEV}))
            router.do([remove_link(UPLINK_ROUTER)], ignoring=frozenset({errno.ENODEV}))
            # Made from the router's side: the kernel takes the far end's index only together with the near end's.
            near = LinkEnd(UPLINK_ROUTER, UPLINK_INDEX, _hardware_address(layout, _ROUTER_END))
            far = LinkEnd(layout.uplink_host, 0, _hardware_address(layout, _HOST_END))
            router.do([add_veth(near, far, self._namespace, mtu)])
        ensure_sysctls(_link_sysctls(layout))
        self._links.do(_host_requests(layout, socket.if_nametoindex(layout.uplink_host)))
        router.do(_router_requests(layout))
        router.await_carrier(UPLINK_INDEX)

    def ensure_forwarding(self, layout: NetworkLayout, routes: HostRoutes) -> None:
        """Forward between our link and the interfaces of the default routes, and nowhere else; and the table.

        Raises SysctlError, NftError, NetlinkError.
        """
        wanted = forwarding_sysctls(layout, routes)
        switched = {name.split("/")[2] for name in observe_differing(wanted)} - {layout.uplink_host}
        with _locked():
            if not self._is_table_known(layout) or switched:
                self._write_table(
                    self._set_names(_LINKS) | {layout.uplink_host}, self._set_names(_FORWARDING) | switched
                )
        ensure_sysctls(wanted)

    def observe_drift(self, layout: NetworkLayout, routes: HostRoutes) -> tuple[str, ...]:
        """How the host's side differs from what it should be, a sentence each."""
        links = {link.name: link for link in self._links.links()}
        if layout.uplink_host not in links or not links[layout.uplink_host].is_up:
            return (f"The uplink {layout.uplink_host} is gone or down.",)
        sentences = [
            f"net/{name} is not {value}."
            for name, value in forwarding_sysctls(layout, routes).items()
            if read_sysctl(name) not in (None, value)
        ]
        if not self._is_table_known(layout):
            sentences.append(f"The table inet {UPLINK_TABLE} is gone or was changed.")
        index = links[layout.uplink_host].index
        routes_there = {route.destination for route in self._links.routes() if route.link_index == index}
        neighbours = {(link, address) for link, address, _hardware in self._links.neighbours()}
        for pool, router in ((layout.pool4, layout.uplink_router4), (layout.pool6, layout.uplink_router6)):
            if pool.version == 6 and not layout.has_ipv6:
                continue
            if pool not in routes_there:
                sentences.append(f"The host's route to {pool} is gone.")
            if (index, router) not in neighbours:
                sentences.append(f"The neighbour {router} of the uplink is gone.")
        return tuple(sentences)

    def observe_obstacles(self, layout: NetworkLayout) -> tuple[str, ...]:
        """What keeps allowed traffic from leaving the host and is not ours to change, a sentence each."""
        routes = self.observe_routes()
        sentences = [missing_rule(drop, layout.uplink_host) for drop in self.observe_foreign_drops(layout.uplink_host)]
        if routes.interface4 is None and routes.interface6 is None:
            sentences.append("The host has no default route, so nothing can leave it.")
        return tuple(sentences)

    def remove(self, link: str) -> None:
        """Remove an instance's link and its part of the table; with the last part the table goes."""
        self._links.do([remove_link(link)], ignoring=frozenset({errno.ENODEV}))
        with _locked():
            others = self._set_names(_LINKS) - {link}
            forwarding = self._set_names(_FORWARDING)
            if others:
                self._write_table(others, forwarding)
                return
            self._nft.run(f"add table inet {UPLINK_TABLE}\ndelete table inet {UPLINK_TABLE}\n")
            for name in forwarding:
                _stop_forwarding(name)

    def _is_table_known(self, layout: NetworkLayout) -> bool:
        """Whether the table is as this object wrote it and our link is in it."""
        if self._fingerprint is None or layout.uplink_host not in self._set_names(_LINKS):
            return False
        return self._fingerprint == observe_chains(self._netfilter, UPLINK_TABLE)

    def _write_table(self, links: frozenset[str] | set[str], forwarding: frozenset[str] | set[str]) -> None:
        self._nft.run(
            _TABLE.substitute(
                table=UPLINK_TABLE,
                links_set=_LINKS,
                links=_elements(links),
                forwarding_set=_FORWARDING,
                forwarding=_elements(forwarding),
            )
        )
        self._fingerprint = observe_chains(self._netfilter, UPLINK_TABLE)

    def _set_names(self, set_name: str) -> frozenset[str]:
        try:
            elements = self._netfilter.dump_elements(UPLINK_TABLE, set_name)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return frozenset()
            raise
        return frozenset(element.key.rstrip(b"\0").decode("ascii", "replace") for element in elements)


def observe_ipv6_obstacle(routes: HostRoutes) -> str | None:
    """Why devboxes cannot have IPv6 on this host, in a sentence; None when they can."""
    if routes.interface6 is None:
        return "The host has no IPv6 default route."
    if read_sysctl(f"ipv6/conf/{routes.interface6}/force_forwarding") is not None:
        return None
    # Before Linux 6.17, IPv6 is forwarded everywhere or nowhere, and switching it on stops the host from
    # listening to router advertisements: not ours to do.
    if read_sysctl("ipv6/conf/all/forwarding") == "1":
        return None
    return "This kernel forwards IPv6 only with net.ipv6.conf.all.forwarding=1, which is off."


def forwarding_sysctls(layout: NetworkLayout, routes: HostRoutes) -> dict[str, str]:
    """The settings that let packets through between our link and the interfaces of the default routes."""
    wanted = {f"ipv4/conf/{name}/forwarding": "1" for name in (layout.uplink_host, routes.interface4) if name}
    if layout.has_ipv6:
        names = (layout.uplink_host, routes.interface6)
        wanted |= {f"ipv6/conf/{name}/force_forwarding": "1" for name in names if name}
    return wanted


def missing_rule(drop: DroppingChain, link: str) -> str:
    """A sentence with the commands that let the uplink's traffic through a foreign chain."""
    where = f"{drop.family} {drop.table} {drop.chain}"
    return (
        f"The chain {drop.chain} of table {drop.family} {drop.table} drops forwarded packets "
        f"and has no rule for {link}: "
        f"nft insert rule {where} iifname {link} accept; "
        f"nft insert rule {where} oifname {link} ct state established,related accept."
    )


def _default_link(routes: list[Route], default: IPv4Network | IPv6Network) -> int | None:
    candidates = [
        route
        for route in routes
        if route.prefix_length == 0
        and route.version == default.version
        and route.table == RT_TABLE_MAIN
        and route.kind == RTN_UNICAST
        and route.link_index is not None
    ]
    best = min(candidates, key=lambda route: route.priority, default=None)
    return None if best is None else best.link_index


def _hardware_address(layout: NetworkLayout, end: int) -> bytes:
    return b"\x02" + bytes.fromhex(layout.instance) + b"\xff" + end.to_bytes(1, "big")


def _link_sysctls(layout: NetworkLayout) -> dict[str, str]:
    link = layout.uplink_host
    return {
        f"ipv4/conf/{link}/rp_filter": "1",
        f"ipv4/conf/{link}/accept_redirects": "0",
        f"ipv4/conf/{link}/send_redirects": "0",
        f"ipv6/conf/{link}/accept_ra": "0",
        f"ipv6/conf/{link}/accept_redirects": "0",
    }


def _host_requests(layout: NetworkLayout, index: int) -> Iterator[Request]:
    router = _hardware_address(layout, _ROUTER_END)
    yield raise_link(index)
    yield set_address(index, layout.uplink_host4, _PREFIX4)
    yield set_neighbour(index, layout.uplink_router4, router)
    yield set_route(layout.pool4, link_index=index, gateway=layout.uplink_router4)
    if layout.has_ipv6:
        yield set_address(index, layout.uplink_host6, _PREFIX6)
        yield set_neighbour(index, layout.uplink_router6, router)
        yield set_route(layout.pool6, link_index=index, gateway=layout.uplink_router6)


def _router_requests(layout: NetworkLayout) -> Iterator[Request]:
    # Fixed neighbours: without a link-local address the kernel cannot ask for one on behalf of a devbox.
    host = _hardware_address(layout, _HOST_END)
    yield raise_link(UPLINK_INDEX)
    yield set_address(UPLINK_INDEX, layout.uplink_router4, _PREFIX4)
    yield set_neighbour(UPLINK_INDEX, layout.uplink_host4, host)
    yield set_route(_DEFAULT4, link_index=UPLINK_INDEX, gateway=layout.uplink_host4, table=FORWARD_TABLE)
    if layout.has_ipv6:
        yield set_address(UPLINK_INDEX, layout.uplink_router6, _PREFIX6)
        yield set_neighbour(UPLINK_INDEX, layout.uplink_host6, host)
        yield set_route(_DEFAULT6, link_index=UPLINK_INDEX, gateway=layout.uplink_host6, table=FORWARD_TABLE)


def _elements(names: frozenset[str] | set[str]) -> str:
    if not names:
        return ""
    quoted = ", ".join(f'"{name}"' for name in sorted(names))
    return f"        elements = {{ {quoted} }}"


def _stop_forwarding(name: str) -> None:
    """Undo what :meth:`HostNetwork.ensure_forwarding` switched on, unless the whole host forwards by now."""
    for family, setting in (("ipv4", "forwarding"), ("ipv6", "force_forwarding")):
        entry = f"{family}/conf/{name}/{setting}"
        if read_sysctl(entry) == "1" and read_sysctl(f"{family}/conf/all/forwarding") != "1":
            write_sysctl(entry, "0")


@contextmanager
def _locked() -> Iterator[None]:
    """Instances of one host change the shared table one after another."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
