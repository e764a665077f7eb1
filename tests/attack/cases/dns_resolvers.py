"""Lookups past the resolver that a box was given."""

import socket
from collections.abc import Iterator

from attack.case import Group, case
from attack.lab import an_allowed_lookup_is_answered, an_allowed_name_is_reached, run, token_of
from attack.scene import Scene
from attack.world import ALLOWED, DENIED_ZONE, OTHER_RESOLVER, OTHER_RESOLVER6
from outgate.cli.demo.namespaces import HOST_ADDRESS4

OTHERS = (OTHER_RESOLVER, OTHER_RESOLVER6)
NEIGHBOURS = ("224.0.0.251", "224.0.0.252", "255.255.255.255", "ff02::fb%eth0", "ff02::1:3%eth0")
NAME_PORTS = (5353, 5355, 137)
"""mDNS (RFC 6762), LLMNR (RFC 4795), NetBIOS names (RFC 1002)."""


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def another_resolver_is_not_asked_by_udp(scene: Scene) -> Iterator[str]:
    """A resolver of the box's own choosing: every program may bring one, and Go, musl and ``dig @`` do not ask nsswitch."""
    name = scene.fresh_name(DENIED_ZONE)
    run(
        scene,
        f"""
        for server in {OTHERS}:
            ask(dns_query("{name}"), server, wait_s=0.5)
            ask(dns_query("{ALLOWED.name}"), server, wait_s=0.5)
        """,
    )
    yield from scene.dns_messages_with(token_of(name))
    yield from scene.packets_to(*OTHERS)


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def another_resolver_is_not_asked_by_tcp(scene: Scene) -> Iterator[str]:
    """The same by TCP, which filters of UDP port 53 forget (RFC 7766 makes every resolver take it)."""
    name = scene.fresh_name(DENIED_ZONE)
    run(
        scene,
        f"""
        query = dns_query("{name}")
        for server in {OTHERS}:
            ask_tcp(struct.pack("!H", len(query)) + query, server, wait_s=1)
        """,
    )
    yield from scene.dns_messages_with(token_of(name))
    yield from scene.packets_to(*OTHERS)


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_allowed_hosts_address_is_no_resolver(scene: Scene) -> Iterator[str]:
    """Port 53 of an address that is allowed: who runs an allowed host runs a resolver there, if the filter lets it pass.

    On the internet it need not even be that: port 53 is what captive portals and many firewalls leave open.
    """
    name = scene.fresh_name(DENIED_ZONE)
    run(
        scene,
        f"""
        for address in lookup("{ALLOWED.name}") or ("{ALLOWED.address4}", "{ALLOWED.address6}"):
            query = dns_query("{name}")
            ask(query, address, wait_s=0.5)
            ask_tcp(struct.pack("!H", len(query)) + query, address, wait_s=1)
        """,
    )
    yield from scene.packets_to(ALLOWED.address4, ALLOWED.address6, port=53)


@case(Group.DNS, control=an_allowed_name_is_reached)
def dns_over_tls_does_not_leave(scene: Scene) -> Iterator[str]:
    """DoT (RFC 7858) to a public resolver, with its own name and with an allowed one, and to an allowed host's port 853."""
    run(
        scene,
        f"""
        for address in {OTHERS}:
            tls(address, "resolver.example.net", port=853, wait_s=1)
            tls(address, "{ALLOWED.name}", port=853, wait_s=1)
        for address in lookup("{ALLOWED.name}"):
            tls(address, "{ALLOWED.name}", port=853, wait_s=1)
        """,
    )
    yield from scene.packets_to(*OTHERS)
    yield from scene.packets_to(ALLOWED.address4, ALLOWED.address6, port=853)


@case(Group.DNS, control=an_allowed_name_is_reached)
def dns_over_quic_does_not_leave(scene: Scene) -> Iterator[str]:
    """DoQ (RFC 9250) and DNS over HTTP/3: a filter that reads handshakes of TCP sees nothing of either."""
    run(
        scene,
        f"""
        initial = bytes.fromhex("c300000001088394c8f03e5157080000449e00000002") + bytes(1178)
        for address in (*{OTHERS}, *lookup("{ALLOWED.name}")):
            for port in (853, 443, 784, 8853):
                udp(address, port, initial, wait_s=0.2)
        """,
    )
    yield from scene.packets_to(*OTHERS, ALLOWED.address4, ALLOWED.address6)


@case(Group.DNS, control=an_allowed_name_is_reached)
def dns_over_https_does_not_leave(scene: Scene) -> Iterator[str]:
    """DoH (RFC 8484) to a public resolver's address: under its own name, under an allowed one, without one, in the clear."""
    run(
        scene,
        f"""
        lookup("{ALLOWED.name}")
        for address in {OTHERS}:
            for server_name in ("resolver.example.net", "{ALLOWED.name}", None):
                tls(address, server_name, host="resolver.example.net", wait_s=1)
            http(address, "resolver.example.net", path="/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB")
        """,
    )
    yield from scene.packets_to(*OTHERS)


@case(Group.DNS, control=an_allowed_name_is_reached)
def dns_on_other_ports_does_not_leave(scene: Scene) -> Iterator[str]:
    """Resolvers on ports that nobody takes for DNS: 5353 and 443 at OpenDNS, 54, 1053, 8053 elsewhere."""
    run(
        scene,
        f"""
        query = dns_query("{scene.fresh_name(DENIED_ZONE)}")
        for address in (*{OTHERS}, *lookup("{ALLOWED.name}")):
            for port in (54, 443, 1053, 5353, 8053):
                ask(query, address, port, wait_s=0.1)
        for address in {OTHERS}:
            ask_tcp(struct.pack("!H", len(query)) + query, address, 5353, wait_s=1)
        """,
    )
    yield from scene.packets_to(*OTHERS)
    yield from (f"UDP to {d.address} port {d.port}" for d in scene.journal().datagrams)


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def names_of_the_neighbourhood_are_not_asked_of_the_host(scene: Scene) -> Iterator[str]:
    """mDNS, LLMNR and NetBIOS: responders on the host and in its network answer anybody, and give names and files away.

    Responder, the tool, lives on what machines ask their neighbours; a gateway that takes part is one of them.
    """
    heard = []
    for port in NAME_PORTS:
        heard.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        heard[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard[-1].bind(("", port))
    run(
        scene,
        f"""
        query = dns_query("printer.local")
        for address in (*{NEIGHBOURS}, "{HOST_ADDRESS4}", *resolvers()):
            for port in {NAME_PORTS}:
                ask(query, address, port, wait_s=0.02)
        """,
    )
    for listener, port in zip(heard, NAME_PORTS, strict=True):
        with listener:
            try:
                yield f"{len(listener.recv(2048))} bytes for the host's port {port}"
            except BlockingIOError:
                continue
