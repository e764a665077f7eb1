"""Segments made by hand that begin nothing, or begin it in a way of their own."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import EVERYTHING, NEEDS, OPEN, a_syn_by_hand, forge
from attack.scene import Ability, Scene
from attack.world import ALLOWED, DENIED


@case(Group.PATH, control=a_syn_by_hand, needs=NEEDS)
def a_scan_without_a_handshake_reaches_nobody(scene: Scene) -> Iterator[str]:
    """ACK, FIN, NULL, Xmas and their mixtures, to denied hosts, to named ones and to addresses that a rule allows.

    Filters that look at SYN alone let every other segment out (nmap's -sA, -sF, -sN and -sX are named for it), and
    conntrack takes an ACK out of the blue for a flow it has missed (``nf_conntrack_tcp_loose``).
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for destination in ("{DENIED.address4}", "{DENIED.address6}", "{ALLOWED.address4}", "{ALLOWED.address6}", "{OPEN}"):
            for flags in (0, FIN, ACK, FIN | ACK, PSH | ACK, URG, FIN | PSH | URG, 0xFF, RST, RST | ACK, SYN | FIN,
                          SYN | RST, SYN | ACK, SYN | ACK | FIN, SYN | PSH | FIN | URG):
                wire.segment(destination, 443, flags, TOKEN, ack=1)
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_syn_by_hand, needs=NEEDS)
def data_in_the_first_segment_waits_for_the_decision(scene: Scene) -> Iterator[str]:
    """SYN with data, with and without a Fast Open cookie (RFC 7413): bytes that travel before anybody was asked.

    A filter that decides by the first data of an *established* flow has let these out already.
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        hello = client_hello("{DENIED.name}") + TOKEN
        cookie = bytes([34, 10]) + b"cookie!!"
        for destination in ("{DENIED.address4}", "{DENIED.address6}", "{ALLOWED.address4}", "{ALLOWED.address6}"):
            for options in (b"", cookie, bytes([34, 2]), bytes([254, 4, 0xF9, 0x89])):
                for port in (80, 443, 22):
                    wire.segment(destination, port, SYN, hello, options=options)
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_syn_by_hand, needs=NEEDS)
def an_answer_nobody_asked_for_reaches_nobody(scene: Scene) -> Iterator[str]:
    """SYN/ACKs and datagrams from well-known ports, as if the box answered: "established" is not "begun outside".

    Stateless rules of the kind "source port 53, 80 or 443 is an answer" were the hole of a generation of filters.
    """
    yield from forge(
        scene,
        f"""
        for destination in ("{DENIED.address4}", "{DENIED.address6}", "{ALLOWED.address4}"):
            ends = (wire.own(destination), destination)
            for source_port in (20, 53, 80, 123, 443, 853):
                for ports in ((source_port, 40000), (source_port, source_port)):
                    wire.send(ip(*ends, TCP, tcp(*ends, ports, SYN | ACK, TOKEN, ack=7)))
                    wire.send(ip(*ends, TCP, tcp(*ends, ports, ACK | PSH, TOKEN, ack=7)))
                    wire.send(ip(*ends, TCP, tcp(*ends, ports, SYN, TOKEN)))
                    if 53 not in ports[1:]:
                        wire.send(ip(*ends, UDP, udp_datagram(*ends, ports, TOKEN)))
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(
    Group.PATH,
    control=a_syn_by_hand,
    needs=(*NEEDS, Ability.EVERYTHING),
    closed_in_the_open="A router does not forward what has no time to live left (RFC 1812 §5.3.1).",
)
def a_packet_without_time_to_live_leaves_nothing_behind(scene: Scene) -> Iterator[str]:
    """TTL 0 and 1: the filter sees and remembers a flow that the far side never sees (Ptacek and Newsham 1998)."""
    yield from forge(
        scene,
        f"""
        for destination in ("{DENIED.address4}", "{DENIED.address6}"):
            ends = (wire.own(destination), destination)
            for ttl in (0, 1):
                wire.send(ip(*ends, UDP, udp_datagram(*ends, (new_port(), 7), TOKEN), ttl=ttl))
                wire.send(ip(*ends, TCP, tcp(*ends, (new_port(), 443), SYN, TOKEN), ttl=ttl))
        """,
        rules=EVERYTHING,
        to=(DENIED.address4, DENIED.address6),
    )


@case(
    Group.PATH,
    control=a_syn_by_hand,
    needs=(*NEEDS, Ability.EVERYTHING),
)
def a_packet_to_its_own_source_harms_nobody(scene: Scene) -> Iterator[str]:
    """The land attack (1997): source and destination the same, the box's own, the gateway's, loopback's.

    What is judged by "does it come from inside" and "does it go inside" passes both.
    """
    yield from forge(
        scene,
        """
        for address in (wire.address4, wire.address6, wire.gateway, "127.0.0.1", "::1"):
            for ports in ((139, 139), (53, 53), (443, 443)):
                wire.send(ip(address, address, TCP, tcp(address, address, ports, SYN, TOKEN)))
                wire.send(ip(address, address, UDP, udp_datagram(address, address, ports, TOKEN)))
        """,
        rules=EVERYTHING,
        also=(scene.internet.namespaces.host,),
    )
