"""Packets made by hand whose source is not the box's own."""

from collections.abc import Iterator, Sequence

from attack.case import Group, case
from attack.forging import EVERYTHING, NEEDS, a_datagram_by_hand, ends, forge
from attack.scene import Ability, Scene
from attack.world import ALLOWED, DENIED, METADATA
from outgate.cli.demo.namespaces import HOST_ADDRESS4, HOST_ADDRESS6

NEEDS_EVERYTHING = (*NEEDS, Ability.EVERYTHING)


def _from(scene: Scene, sources: Sequence[str], *more: str) -> Iterator[str]:
    """UDP and TCP from each of ``sources`` (and of ``more``, as Python text) to a host that the box may reach."""
    yield from forge(
        scene,
        f"""
        for source in (*SOURCES, {", ".join(more)}):
            destination = "{DENIED.address6}" if ":" in source else "{DENIED.address4}"
            made = udp_datagram(source, destination, (new_port(), 7), TOKEN)
            wire.send(ip(source, destination, UDP, made))
            made = tcp(source, destination, (new_port(), 443), SYN)
            wire.send(ip(source, destination, TCP, made))
        """,
        rules=EVERYTHING,
        given={"SOURCES": tuple(sources)},
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=(*NEEDS_EVERYTHING, Ability.TWO_BOXES))
def another_boxs_address_as_source_gives_nothing_of_its_rights(scene: Scene) -> Iterator[str]:
    """Boxes that are known by their source address, without asking on which link the packet came.

    On a container bridge whoever may make packets sends under a neighbour's address, and rp_filter knows IPv4 only.
    """
    yield from _from(scene, ends(scene))


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS_EVERYTHING)
def an_address_of_the_way_as_source_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Sources that those on the way trust: the gateway's, the host's, the resolver's (RFC 2827: filter at the edge)."""
    yield from _from(scene, (HOST_ADDRESS4, HOST_ADDRESS6, "45.45.45.53", "2a0f:4444::53"), "wire.gateway")


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS_EVERYTHING)
def a_strangers_address_as_source_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Spoofed sources out of the internet: reflection attacks, and flows that belong to nobody (RFC 2827, RFC 3704).

    Filters that check sources for IPv4 by rp_filter leave IPv6 open, for which Linux has no such setting.
    """
    yield from _from(
        scene, (ALLOWED.address4, ALLOWED.address6, "45.45.47.99", "2a0f:4444:9::9", "10.1.2.3", "fd00::1")
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS_EVERYTHING)
def an_address_that_is_no_source_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Martians (RFC 1812 §5.3.7): loopback, unspecified, broadcast, multicast, link-local and IPv4 inside IPv6.

    IPv6 has had holes of this kind for long: ``::ffff:127.0.0.1`` on the wire passed for loopback
    (draft-itojun-v6ops-v4mapped-harmful).
    """
    addresses = ("127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", METADATA)
    yield from _from(
        scene, (*addresses, "::1", "::", "ff02::1", "fe80::99", f"::ffff:{ALLOWED.address4}", "64:ff9b::1")
    )
