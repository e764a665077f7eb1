"""ICMP errors made by hand: packets that are allowed for the sake of another one."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, a_datagram_by_hand, forge
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, METADATA


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def an_error_about_an_allowed_flow_goes_nowhere_else(scene: Scene) -> Iterator[str]:
    """An ICMP error whose inside tells of an allowed flow, addressed to a denied host, with data behind it.

    "Icmp Reachable" (Synacktiv, 2019): pf (CVE-2019-5598) and netfilter took the inside for what was to be judged.
    """
    yield from forge(
        scene,
        f"""
        port = new_port()
        wire.datagram("{OPEN}", 7, b"a flow", source_port=port)
        flow = Taken(wire, "{OPEN}", 7)
        insides = []
        for protocol, make, ports in (
            (UDP, lambda a, b, p: udp_datagram(a, b, p, TOKEN), (port, 7)),
            (TCP, lambda a, b, p: tcp(a, b, p, ACK, TOKEN, seq=flow.seq, ack=flow.ack), flow.ports),
        ):
            insides.append(ipv4(wire.address4, "{OPEN}", protocol, make(wire.address4, "{OPEN}", ports)))
            insides.append(ipv4("{OPEN}", wire.address4, protocol, make("{OPEN}", wire.address4, ports[::-1])))
        for destination in ("{DENIED.address4}", "{METADATA}", "{ALLOWED.address4}"):
            for inside in insides:
                for kind, code in ((3, 0), (3, 3), (3, 4), (3, 13), (4, 0), (5, 0), (5, 1), (11, 0), (12, 0)):
                    made = icmp(kind, code, struct.pack("!HH", 0, 1300), inside + TOKEN)
                    wire.send(ipv4(wire.address4, destination, ICMP, made))
        flow.end(0)
        """,
        to=(DENIED.address4, METADATA),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def an_error_about_a_named_flow_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Errors about flows that a proxy on the way has taken, both families: nobody behind it knows them.

    What is "related" to the flow between box and proxy is let out by filters that think of one flow, not of two.
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for there, other in (("{ALLOWED.address4}", "{DENIED.address4}"), ("{ALLOWED.address6}", "{DENIED.address6}")):
            flow = Taken(wire, there, 443)
            here = wire.own(there)
            insides = (
                ip(here, there, TCP, tcp(here, there, flow.ports, ACK, TOKEN, seq=flow.seq, ack=flow.ack)),
                ip(there, here, TCP, tcp(there, here, flow.ports[::-1], ACK, TOKEN, seq=flow.ack, ack=flow.seq)),
            )
            for destination in (other, there):
                for inside in insides:
                    if ":" in there:
                        for kind in (1, 2, 3, 4):
                            made = icmp6(here, destination, kind, struct.pack("!I", 1300), inside + TOKEN)
                            wire.send(ipv6(here, destination, ICMP6, made))
                    else:
                        for kind, code in ((3, 3), (3, 4), (5, 1), (11, 0), (12, 0)):
                            made = icmp(kind, code, struct.pack("!HH", 0, 1300), inside + TOKEN)
                            wire.send(ipv4(here, destination, ICMP, made))
            flow.end(0)
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def an_error_about_nothing_carries_nothing(scene: Scene) -> Iterator[str]:
    """Errors about flows that never were, broken ones, and errors about errors (which RFC 1122 §3.2.2 forbids)."""
    yield from forge(
        scene,
        f"""
        for destination in ("{DENIED.address4}", "{ALLOWED.address4}", "{OPEN}"):
            never = ipv4(destination, wire.address4, UDP, udp_datagram(destination, wire.address4, (7, 9999), TOKEN))
            about_error = ipv4(destination, wire.address4, ICMP, icmp(3, 3, bytes(4), never))
            for inside in (never, about_error, never[:20], TOKEN, b""):
                for kind in (3, 4, 5, 11, 12):
                    wire.send(ipv4(wire.address4, destination, ICMP, icmp(kind, 1, bytes(4), inside + TOKEN)))
        """,
        to=(DENIED.address4,),
    )
