"""IP options and IPv6 extension headers made by hand: what stands between the address and the ports."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, a_datagram_by_hand, forge
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, METADATA


@case(
    Group.PATH,
    control=a_datagram_by_hand,
    needs=NEEDS,
    closed_in_the_open="Linux routers refuse source routes unless they are told otherwise.",
)
def a_source_route_leads_around_nothing(scene: Scene) -> Iterator[str]:
    """Loose and strict source routes (RFC 791) by an allowed host to a denied one, which stands in the option only.

    RFC 7126 §4.3 asks every filter to drop them; where the first hop obeys, the address that was judged is a waypoint.
    """
    yield from forge(
        scene,
        f"""
        for kind in (131, 137):
            for pointer in (4, 8):
                for last in ("{DENIED.address4}", "{METADATA}"):
                    route = socket.inet_aton(last) + socket.inet_aton("{DENIED.address4}")
                    ends = (wire.address4, "{OPEN}")
                    options = bytes([kind, 3 + len(route), pointer]) + route
                    made = udp_datagram(*ends, (new_port(), 7), TOKEN)
                    wire.send(ipv4(*ends, UDP, made, options=options))
        """,
        to=(DENIED.address4, METADATA),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def other_ip_options_move_nothing_past_the_rules(scene: Scene) -> Iterator[str]:
    """Record route, timestamps, router alert, security and nonsense in front of ports that are not allowed.

    Filters that take the ports from a fixed offset read options instead (RFC 7126 for what each may do).
    """
    yield from forge(
        scene,
        f"""
        looks_allowed = struct.pack("!HH", 40000, 7)
        for options in (
            bytes([7, 11, 4]) + bytes(8), bytes([68, 12, 5, 0]) + bytes(8), bytes([148, 4, 0, 0]), bytes([130, 11]) + bytes(9),
            bytes([1] * 40), bytes([0] * 4), bytes([30, 8]) + looks_allowed + bytes(2), bytes([255, 4, 0, 0]),
            bytes([7, 255, 4, 0]), bytes([68, 0, 0, 0]), bytes([131, 3, 0, 0]), bytes([222, 40]) + TOKEN.ljust(38),
        ):
            for destination, port in (("{OPEN}", 9), ("{DENIED.address4}", 7), ("{ALLOWED.address4}", 53)):
                ends = (wire.address4, destination)
                wire.send(ipv4(*ends, UDP, udp_datagram(*ends, (new_port(), port), TOKEN), options=options))
                wire.send(ipv4(*ends, TCP, tcp(*ends, (new_port(), port), SYN, TOKEN), options=options))
        """,
        to=(DENIED.address4,),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def headers_of_ipv6_hide_no_transport(scene: Scene) -> Iterator[str]:
    """Hop-by-hop and destination options, once, twice and in chains, authentication headers, and no next header at all.

    Filters that read the first "next header" as the transport see neither ports nor protocol
    (RFC 7045, RFC 7112; RA-Guard was passed in this way, RFC 7113).
    """
    yield from forge(
        scene,
        f"""
        def options(following, words=0):
            return bytes([following, words, 1, 4 + 8 * words]) + bytes(4 + 8 * words)
        for destination in ("{DENIED.address6}", "{ALLOWED.address6}"):
            ends = (wire.address6, destination)
            for transport in (UDP, TCP, ICMP6):
                made = {{
                    UDP: udp_datagram(*ends, (new_port(), 7), TOKEN),
                    TCP: tcp(*ends, (new_port(), 443), ACK, TOKEN),
                    ICMP6: icmp6(*ends, 128, bytes(4), TOKEN),
                }}[transport]
                authentication = bytes([transport, 4, 0, 0]) + bytes(20)
                for first, whole in (
                    (0, options(transport) + made),
                    (60, options(transport) + made),
                    (0, options(60) + options(transport, 2) + made),
                    (60, options(60) + options(60) + options(60) + options(transport) + made),
                    (60, options(0) + options(transport) + made),
                    (51, authentication + made),
                    (60, options(51) + authentication + made),
                    (59, TOKEN),
                    (60, options(59) + TOKEN),
                    (0, options(253) + TOKEN),
                    (135, options(transport) + made),
                    (139, options(transport) + made),
                    (60, bytes([transport, 255]) + TOKEN),
                ):
                    wire.send(ipv6(*ends, first, whole))
        """,
        to=(DENIED.address6, ALLOWED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def a_routing_header_leads_around_nothing(scene: Scene) -> Iterator[str]:
    """Type 0 (deprecated for this by RFC 5095), mobility's type 2, RPL's type 3 and segment routing's type 4.

    The address in the header is the allowed one, the address in the route is where it goes.
    """
    yield from forge(
        scene,
        f"""
        for first, then in (("{ALLOWED.address6}", "{DENIED.address6}"), ("{DENIED.address6}", "{ALLOWED.address6}")):
            ends = (wire.address6, first)
            route = socket.inet_pton(socket.AF_INET6, then)
            for kind in (0, 2, 3, 4, 253):
                for left in (0, 1):
                    header = bytes([UDP, 2, kind, left]) + bytes(4) + route
                    wire.send(ipv6(*ends, 43, header + udp_datagram(wire.address6, then, (new_port(), 7), TOKEN)))
                    header = bytes([TCP, 2, kind, left]) + bytes(4) + route
                    wire.send(ipv6(*ends, 43, header + tcp(wire.address6, then, (new_port(), 443), ACK, TOKEN)))
        """,
        to=(DENIED.address6, ALLOWED.address6),
    )
