"""Segments made by hand on connections that were opened: what reaches the far side is what was judged."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import NEEDS, OPEN, a_connection_by_hand, forge, run_forged
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, SHARED_ALLOWED, SHARED_DENIED

_ADDRESS = SHARED_ALLOWED.address4
_HELLOS = f"""
resolve("{SHARED_ALLOWED.name}")
allowed, denied = client_hello("{SHARED_ALLOWED.name}"), client_hello("{SHARED_DENIED.name}")
# Two names of one length, so that only the name differs in what is sent twice.
at = denied.index(b"{SHARED_DENIED.name}")
"""


def _names_after(scene: Scene, *attempts: str) -> Iterator[str]:
    """Where the far side read the denied name, after each of ``attempts`` had a ``flow`` of its own."""
    flows = (
        f'flow = Taken(wire, "{_ADDRESS}", 443)\n{attempt}\nflow.receive(2)\nflow.end(len(denied))'
        for attempt in attempts
    )
    run_forged(scene, _HELLOS + "\n".join(flows))
    yield from scene.requests_naming(SHARED_DENIED.name)


@case(Group.PATH, control=a_connection_by_hand, needs=NEEDS)
def a_name_in_segments_out_of_order_is_still_read(scene: Scene) -> Iterator[str]:
    """The denied name in the last segment, which comes first, or cut in its middle: filters that read one packet.

    Most SNI filters read the first data packet alone (Bock et al., "Geneva", CCS 2019; TCP segmentation is the oldest
    of their evasions).
    """
    yield from _names_after(
        scene,
        "flow.send(at + 3, denied[at + 3:])\nflow.send(0, denied[:at + 3])",
        "\n".join(f"flow.send(at + {i}, denied[at + {i}:at + {i + 1}])" for i in range(5, 0, -1))
        + "\nflow.send(at + 6, denied[at + 6:])\nflow.send(0, denied[:at + 1])",
        "flow.send(0, denied[:1])\nflow.send(2, denied[2:])\nflow.send(1, denied[1:2])",
    )


@case(Group.PATH, control=a_connection_by_hand, needs=NEEDS)
def a_segment_that_overlaps_another_rewrites_no_name(scene: Scene) -> Iterator[str]:
    """The same bytes twice with different contents: filter and far side keep different ones.

    Ptacek and Newsham (1998); Shankar and Paxson, "Active Mapping" (2003): each system prefers another copy.
    """
    decoy = f"decoy = denied.replace(b'{SHARED_DENIED.name}', b'{SHARED_ALLOWED.name}'.rjust({len(SHARED_DENIED.name)}, b'x'))\n"
    yield from _names_after(
        scene,
        decoy + "flow.send(at, decoy[at:])\nflow.send(at, denied[at:])\nflow.send(0, denied[:at])",
        "flow.send(at, denied[at:])\nflow.send(at, decoy[at:])\nflow.send(0, denied[:at])",
        "flow.send(at - 4, decoy[at - 4:at + 30])\nflow.send(at, denied[at:])\nflow.send(0, decoy[:at + 8])",
        "flow.send(0, denied)\nflow.send(0, decoy)",
        "flow.send(1, denied[1:])\nflow.send(0, decoy)\nflow.send(0, denied)",
    )


@case(Group.PATH, control=a_connection_by_hand, needs=NEEDS)
def a_reset_that_is_none_does_not_end_the_watching(scene: Scene) -> Iterator[str]:
    """A reset or an end outside of the window, or with a wrong checksum: the filter forgets, the far side goes on.

    Stateful filters that believe any RST can be blinded by one (Khattak et al., "Towards Illuminating a Censorship
    Monitor's Model", FOCI 2013).
    """
    yield from _names_after(
        scene,
        "flow.send(100000, b'', RST)\nflow.send(-5, b'', RST | ACK)\nflow.send(0, denied)",
        "flow.send(0, b'', RST | ACK, check=99)\nflow.send(0, b'', FIN | ACK, check=99)\nflow.send(0, denied)",
        "flow.send(50000, b'', FIN | ACK)\nflow.send(0, b'', SYN)\nflow.send(0, denied)",
    )


@case(Group.PATH, control=a_connection_by_hand, needs=NEEDS)
def urgent_data_hides_no_name(scene: Scene) -> Iterator[str]:
    """A byte marked urgent is skipped by some receivers and read by others.

    Snort and others had to learn where each system takes the byte out of the stream (RFC 6093 §3).
    """
    yield from _names_after(
        scene,
        "extra = denied[:at + 4] + b'x' + denied[at + 4:]\nflow.send(0, extra, PSH | ACK | URG, urgent=at + 5)",
        "flow.send(0, denied, PSH | ACK | URG, urgent=1)",
        "flow.send(0, denied, PSH | ACK | URG, urgent=65535)",
    )


@case(Group.PATH, control=a_connection_by_hand, needs=NEEDS)
def data_behind_a_reset_reaches_nobody(scene: Scene) -> Iterator[str]:
    """A connection that was allowed is reset, and the same two ends go on: a flow of old rights, or another host's.

    State that outlives its connection (conntrack's CLOSE and TIME_WAIT) lets later packets of the tuple pass.
    """
    yield from forge(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for address, port, said in (("{OPEN}", 7, b"before"), ("{ALLOWED.address4}", 443, client_hello("{ALLOWED.name}"))):
            flow = Taken(wire, address, port)
            flow.send(0, said)
            flow.receive()
            flow.end(len(said))
            # What goes on to a host and port that a rule allows is that rule's business, connection or not.
            behind = b"behind" if address == "{OPEN}" else TOKEN
            flow.send(len(said), behind)
            flow.send(len(said), behind, SYN | ACK)
            for destination in ("{DENIED.address4}", "{OPEN}"):
                ends = (wire.address4, destination)
                ports = (flow.ports[0], 9)
                for flags in (ACK | PSH, SYN):
                    wire.send(ipv4(*ends, TCP, tcp(*ends, ports, flags, TOKEN, seq=flow.seq + len(said), ack=flow.ack)))
        """,
        to=(DENIED.address4,),
    )
