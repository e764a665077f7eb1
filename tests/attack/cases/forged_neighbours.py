"""Packets made by hand that are aimed at who is near: another box, the gateway, the host."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import EVERYTHING, NEEDS, OPEN, a_datagram_by_hand, ends, forge, run_forged, watching_box
from attack.scene import Ability, Scene
from attack.witness import new_token
from attack.world import ALLOWED
from outgate.cli.demo.namespaces import HOST_ADDRESS4, HOST_ADDRESS6

_NEEDS = (*NEEDS, Ability.EVERYTHING, Ability.TWO_BOXES)
_SPOOF = """
def hail(address):
    mine, theirs, gateway = (socket.inet_aton(text) for text in (address, VICTIM4, wire.gateway))
    for operation in (1, 2):
        for target, mac in ((mine, b"\\xff" * 6), (theirs, wire.router_mac), (gateway, wire.router_mac)):
            body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + wire.mac + mine + mac + target
            wire.send(body, to=mac, kind=ARP)
for address in (VICTIM4, wire.gateway, ALLOWED4):
    hail(address)
own, router = b"\\x01\\x01" + wire.mac, ip_address("fe80::1").packed
for source in ("fe80::1", VICTIM6, ALLOWED6, "fe80::77"):
    target = ip_address(source).packed
    for destination, to in (("ff02::1", b"\\x33\\x33\\0\\0\\0\\x01"), ("fe80::1", wire.router_mac)):
        for made in (
            icmp6(source, destination, 136, struct.pack("!I", 0xA0000000), target + b"\\x02\\x01" + wire.mac),
            icmp6(source, destination, 135, bytes(4), router + own),
            icmp6(source, destination, 134, struct.pack("!BBH", 64, 0, 1800), bytes(8) + own),
            icmp6(source, destination, 137, bytes(4), router + ip_address(VICTIM6).packed),
        ):
            wire.send(ipv6(source, destination, ICMP6, made, hops=255), to=to)
"""


def _asked_and_answered(scene: Scene) -> bool:
    """The twin: the other box is answered, over both families and both kinds of path."""
    said = run_forged(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        print(len(udp("{OPEN}", 7, wait_s=5)) > 0, len(tls("{ALLOWED.address6}", "{ALLOWED.name}")) > 0)
        """,
    )
    return said.split() == ["True", "True"]


@case(
    Group.PATH,
    control=_asked_and_answered,
    needs=_NEEDS,
    closed_in_the_open="Each box has a link of its own here too, and the router's routes name the link.",
)
def another_boxs_packets_do_not_come_to_who_claims_its_address(scene: Scene) -> Iterator[str]:
    """ARP, neighbour and router discovery that say: the other box's address, the gateway's, is here (RFC 4861 §11.1).

    On a shared bridge this reads and answers a neighbour's traffic; Docker's and Kubernetes' networks believed a
    container's router advertisements (CVE-2020-13401, CVE-2020-10749).
    """
    victim4, victim6 = ends(scene)
    given = {"VICTIM4": victim4, "VICTIM6": victim6, "ALLOWED4": ALLOWED.address4, "ALLOWED6": ALLOWED.address6}
    with watching_box(scene, EVERYTHING) as witness:
        run_forged(scene, _SPOOF, rules=EVERYTHING, given=given)
        if not _asked_and_answered(scene):
            yield "the other box is not answered any more"
        yield from witness.told(to=(victim4, victim6))


@case(Group.PATH, control=_asked_and_answered, needs=_NEEDS)
def another_box_receives_no_packet_by_hand(scene: Scene) -> Iterator[str]:
    """Straight to another box: its addresses of both families, its link-local one, errors about its flows, every flag.

    Container networks forward between containers unless told otherwise; errors about a neighbour's flow pass where
    "related" is accepted without a look at whom it is for.
    """
    victim4, victim6 = ends(scene)
    token = new_token()
    with watching_box(scene) as witness:
        run_forged(
            scene,
            f"""
            inner4 = ipv4(VICTIM4, "{OPEN}", UDP, udp_datagram(VICTIM4, "{OPEN}", (40000, 7), TOKEN))
            answer4 = ipv4("{OPEN}", VICTIM4, UDP, udp_datagram("{OPEN}", VICTIM4, (7, 40000), TOKEN))
            for destination in (VICTIM4, VICTIM6, "fe80::6f:67ff:fe02:0", "::ffff:" + VICTIM4, "64:ff9b::" + VICTIM4):
                source = wire.own(destination)
                for port in (22, 53, 80, 443, 40000):
                    made = udp_datagram(source, destination, (new_port(), port), TOKEN)
                    wire.send(ip(source, destination, UDP, made))
                    for flags in (SYN, ACK, SYN | ACK, RST, FIN, 0):
                        wire.send(ip(source, destination, TCP, tcp(source, destination, (new_port(), port), flags, TOKEN)))
                for protocol in (0, 4, 41, 43, 44, 47, 60, 132, 253):
                    wire.send(ip(source, destination, protocol, TOKEN.ljust(40, b"\\0")))
                if ":" not in destination:
                    for kind in (0, 3, 4, 5, 8, 11, 12, 13, 17):
                        for inner in (inner4, answer4):
                            wire.send(ipv4(source, destination, ICMP, icmp(kind, 1, bytes(4), inner + TOKEN)))
                else:
                    for kind in (1, 2, 3, 4, 128, 129, 133, 134, 135, 136, 137):
                        made = icmp6(source, destination, kind, bytes(4), TOKEN * 4)
                        for hops in (64, 255):
                            wire.send(ipv6(source, destination, ICMP6, made, hops=hops))
            """,
            rules=EVERYTHING,
            given={"VICTIM4": victim4, "VICTIM6": victim6, "TOKEN": token.encode()},
        )
        if not _asked_and_answered(scene):
            yield "the other box is not answered any more"
        yield from witness.told(token)


@case(Group.PATH, control=a_datagram_by_hand, needs=(*NEEDS, Ability.EVERYTHING))
def the_host_receives_no_packet_by_hand(scene: Scene) -> Iterator[str]:
    """Services of the host on any of its addresses: what listens on 0.0.0.0 listens for boxes too.

    Rules in the forward hook do not see what the host keeps for itself; CVE-2020-8558 (kube-proxy) let neighbours reach
    services that listened on the host's loopback.
    """
    yield from forge(
        scene,
        f"""
        for destination in ("{HOST_ADDRESS4}", "{HOST_ADDRESS6}", "127.0.0.1", "::1", "::ffff:{HOST_ADDRESS4}", "0.0.0.0",
                            "64:ff9b::{HOST_ADDRESS4}", "::{HOST_ADDRESS4}", "2002:2d2d:2802::1"):
            source = wire.own(destination)
            for port in (22, 80, 443, 5432, 8080, 18080):
                wire.send(ip(source, destination, UDP, udp_datagram(source, destination, (new_port(), port), TOKEN)))
                for flags in (SYN, ACK, SYN | ACK):
                    wire.send(ip(source, destination, TCP, tcp(source, destination, (new_port(), port), flags, TOKEN)))
            if ":" in destination:
                wire.send(ipv6(source, destination, ICMP6, icmp6(source, destination, 128, bytes(4), TOKEN)))
            else:
                wire.send(ipv4(source, destination, ICMP, icmp(8, 0, bytes(4), TOKEN)))
                wire.send(ipv4(source, destination, ICMP, icmp(13, 0, bytes(4), TOKEN)))
        """,
        rules=EVERYTHING,
        also=(scene.internet.namespaces.host,),
    )
