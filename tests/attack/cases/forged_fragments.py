"""Fragments made by hand: what a filter that reads each of them for itself does not see."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, forge
from attack.scene import Scene
from attack.world import ALLOWED, DENIED

_PORT_OF_NO_RULE = 443
"""Datagrams that arrive there are in the journal."""


def _fragments_to_an_allowed_port(scene: Scene) -> bool:
    """The twin of all of them: what arrives whole is what was allowed."""
    return any(
        forge(
            scene,
            f"""
            ends = (wire.address4, "{OPEN}")
            made = udp_datagram(*ends, (new_port(), 7), TOKEN * 4)
            for piece in fragments4(*ends, UDP, [(0, made[:16]), (16, made[16:])], number=new_port()):
                wire.send(piece)
            """,
        )
    )


@case(Group.PATH, control=_fragments_to_an_allowed_port, needs=NEEDS)
def fragments_to_a_denied_host_or_port_do_not_leave(scene: Scene) -> Iterator[str]:
    """Filters that look at first fragments only, or at none: the rest has no ports to be judged by.

    RFC 1858 ("tiny fragment attack": the flags or ports of the header come in the second fragment).
    """
    yield from forge(
        scene,
        f"""
        for destination, port in (("{OPEN}", {_PORT_OF_NO_RULE}), ("{DENIED.address4}", 7)):
            ends = (wire.address4, destination)
            made = udp_datagram(*ends, (new_port(), port), TOKEN * 4)
            syn = tcp(*ends, (new_port(), port), SYN, TOKEN)
            for protocol, whole in ((UDP, made), (TCP, syn)):
                number = new_port()
                for piece in fragments4(*ends, protocol, [(0, whole[:8]), (8, whole[8:])], number=number):
                    wire.send(piece)
                # The same again, the last fragment first.
                for piece in reversed(fragments4(*ends, protocol, [(0, whole[:16]), (16, whole[16:])], number=number + 1)):
                    wire.send(piece)
        """,
        to=(DENIED.address4,),
    )


@case(
    Group.PATH,
    control=_fragments_to_an_allowed_port,
    needs=NEEDS,
    closed_in_the_open="A router that translates addresses puts fragments together first.",
)
def a_fragment_without_a_beginning_does_not_leave(scene: Scene) -> Iterator[str]:
    """Non-first fragments pass filters that wait for ports; to the far side they are a channel of their own.

    Stateless filters let them pass because without the first fragment nobody can use them (RFC 1858 §2).
    """
    yield from forge(
        scene,
        f"""
        for destination in ("{OPEN}", "{DENIED.address4}", "{ALLOWED.address4}"):
            for protocol in (UDP, TCP, ICMP, 253):
                for offset in (8, 1480, 65512):
                    for more in (False, True):
                        pieces = [(offset, TOKEN.ljust(16))]
                        wire.send(*fragments4(wire.address4, destination, protocol, pieces, more=more, number=new_port()))
        """,
        to=(DENIED.address4, ALLOWED.address4),
    )


@case(Group.PATH, control=_fragments_to_an_allowed_port, needs=NEEDS)
def an_overlapping_fragment_rewrites_no_port(scene: Scene) -> Iterator[str]:
    """The first fragment says an allowed port, a later one overwrites it with another.

    RFC 1858 §4 and RFC 3128; Linux throws such packets away since FragmentSmack (CVE-2018-5391) was mended.
    """
    yield from forge(
        scene,
        f"""
        ends = (wire.address4, "{OPEN}")
        source = new_port()
        made = udp_datagram(*ends, (source, 7), b'overlap' * 8)
        other = udp_datagram(*ends, (source, {_PORT_OF_NO_RULE}), b'overlap' * 8)
        for pieces in (
            [(0, made[:24]), (0, other[:16]), (16, other[16:])],
            [(8, other[8:]), (0, made[:16]), (0, other[:8])],
            [(0, other[:8]), (0, made[:16]), (16, made[16:])],
            [(0, made[:8]), (0, other[:8]), (8, made[8:])],
            [(0, other[:8]), (0, made[:8]), (8, made[8:])],
        ):
            number = new_port()
            for i, (offset, data) in enumerate(pieces):
                more = offset + len(data) < len(made)
                wire.send(*fragments4(*ends, UDP, [(offset, data)], more=more, number=number))
        # Two packets under one number, to two hosts and of two protocols: pieces of one are none of the other.
        denied = udp_datagram(wire.address4, "{DENIED.address4}", (source, 7), b'overlap' * 8)
        wire.send(*fragments4(*ends, UDP, [(0, made[:16])], more=True, number=77))
        wire.send(*fragments4(wire.address4, "{DENIED.address4}", UDP, [(16, denied[16:])], number=77))
        wire.send(*fragments4(*ends, TCP, [(16, made[16:])], number=77))
        """,
        to=(DENIED.address4,),
    )
    for datagram in scene.journal().datagrams:
        if datagram.address == OPEN and datagram.port == _PORT_OF_NO_RULE:
            yield f"a datagram to port {datagram.port}"


@case(Group.PATH, control=_fragments_to_an_allowed_port, needs=NEEDS)
def fragments_of_ipv6_do_not_leave_under_rules_of_ipv4(scene: Scene) -> Iterator[str]:
    """IPv6 fragments: atomic ones (RFC 6946), overlapping ones (RFC 5722), headers split over two (RFC 7112).

    Filters that find no transport header in the first fragment, or stop at the fragment header, let all of it pass;
    FreeBSD's pf took the offset of the last header from another fragment (CVE-2019-5597).
    """
    yield from forge(
        scene,
        f"""
        for destination, port in (("{DENIED.address6}", 7), ("{ALLOWED.address6}", 7), ("{ALLOWED.address6}", 53)):
            ends = (wire.address6, destination)
            made = udp_datagram(*ends, (new_port(), port), TOKEN * 4)
            syn = tcp(*ends, (new_port(), 443), SYN | ACK, TOKEN)
            options = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
            for protocol, whole in ((UDP, made), (TCP, syn), (60, options + made)):
                for pieces in ([(0, whole)], [(0, whole[:8]), (8, whole[8:])], [(8, whole[8:])],
                               [(0, whole[:16]), (8, whole[8:])]):
                    for piece in fragments6(*ends, protocol, pieces, number=new_port()):
                        wire.send(piece)
        """,
        to=(DENIED.address6, ALLOWED.address6),
    )
