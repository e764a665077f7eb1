"""Packets made by hand whose checksums or lengths are wrong, to a host and port that the rules allow."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, a_datagram_by_hand, a_syn_by_hand, forge, run_forged
from attack.scene import Scene
from attack.world import SHARED_ALLOWED, SHARED_DENIED


@case(
    Group.PATH,
    control=a_datagram_by_hand,
    needs=NEEDS,
    closed_in_the_open="A router drops packets whose own header is wrong (RFC 1812 §5.2.2).",
)
def a_packet_with_a_wrong_header_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Headers that filter and receiver read differently: checksum, version, header length, total length.

    Ptacek and Newsham, "Insertion, Evasion, and Denial of Service" (1998).
    """
    yield from forge(
        scene,
        f"""
        ends = (wire.address4, "{OPEN}")
        def datagram():
            return udp_datagram(*ends, (new_port(), 7), TOKEN)
        for how in ({{"check": 0x1234}}, {{"check": 0}}, {{"first": 0x44}}, {{"first": 0x55}}, {{"length": 10}},
                    {{"first": 0x4F}}, {{"length": 65535}}, {{"length": 0}}, {{"first": 0x05}}, {{"first": 0xF5}}):
            wire.send(ipv4(*ends, UDP, datagram(), **how), kind=IPV4)
        whole = ipv4(*ends, UDP, datagram())
        for size in (1, 8, 19, 20, 24, 27, len(whole) - 1):
            wire.send(whole[:size], kind=IPV4)
        wire.send(whole, kind=IPV6)
        """,
    )


@case(Group.PATH, control=a_syn_by_hand, needs=NEEDS)
def a_segment_with_a_wrong_checksum_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Segments that a filter takes seriously and the receiver throws away, so that the two see different streams.

    The classic insertion attack on inspecting filters (Ptacek and Newsham 1998); conntrack looks at checksums
    only where ``nf_conntrack_checksum`` is on and invalid packets are dropped.
    """
    yield from forge(
        scene,
        f"""
        ends = (wire.address4, "{OPEN}")
        for check in (0, 1, 0xFFFF, 0x1234):
            ports = (new_port(), 7)
            wire.send(ipv4(*ends, TCP, tcp(*ends, ports, SYN, TOKEN, check=check)))
        for check in (1, 0x1234):
            wire.send(ipv4(*ends, UDP, udp_datagram(*ends, (new_port(), 7), TOKEN, check=check)))
        for length in (0, 7, 9, 65535):
            made = udp_datagram(*ends, (new_port(), 7), TOKEN)
            wire.send(ipv4(*ends, UDP, made[:4] + struct.pack("!H", length) + made[6:]))
        for words in (0, 4, 15):
            made = tcp(*ends, (new_port(), 7), SYN, TOKEN)
            wire.send(ipv4(*ends, TCP, made[:12] + bytes([words << 4]) + made[13:]))
        """,
    )


def _hello_at_a_shared_address(scene: Scene) -> bool:
    """The twin of decoys: the name that is allowed there."""
    return SHARED_ALLOWED.name in _greeted_after(
        scene, "flow.send(0, allowed)", "flow.receive()", "flow.end(len(allowed))"
    )


def _greeted_after(scene: Scene, *lines: str) -> set[str | None]:
    """The names that the far side read at the shared address, after ``lines`` ran with a ``flow`` there."""
    run_forged(
        scene,
        "\n".join(
            (
                f'resolve("{SHARED_ALLOWED.name}")',
                f'allowed, denied = client_hello("{SHARED_ALLOWED.name}"), client_hello("{SHARED_DENIED.name}")',
                f'flow = Taken(wire, "{SHARED_ALLOWED.address4}", 443)',
                *lines,
            )
        ),
    )
    return {c.server_name for c in scene.journal().connections if c.address == SHARED_ALLOWED.address4}


@case(Group.PATH, control=_hello_at_a_shared_address, needs=NEEDS)
def a_decoy_that_only_the_filter_would_read_hides_no_name(scene: Scene) -> Iterator[str]:
    """A hello for an allowed name that never counts (wrong checksum, wrong sequence number, short life) before the true one.

    What censorship circumvention tools do to inspecting filters (INTANG, Geneva, zapret: "fake" packets).
    """
    lines = (
        "flow.send(0, allowed, check=0x1234)",
        "flow.send(-200000, allowed)",
        "flow.send(0, allowed, RST, check=1)",
        "flow.send(0, denied)",
        "flow.receive()",
        "flow.end(len(denied))",
    )
    if SHARED_DENIED.name in _greeted_after(scene, *lines):
        yield "the denied name behind a decoy"
