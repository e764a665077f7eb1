"""Streams that are sent in an odd way by ordinary sockets: what the far side reads is what was judged."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.paths import an_allowed_name, run
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, SHARED_ALLOWED, SHARED_DENIED

_BEGIN = f"""
lookup("{SHARED_ALLOWED.name}")
denied = client_hello("{SHARED_DENIED.name}")
at = denied.index(b"{SHARED_DENIED.name}")
def flow():
    made = socket.create_connection(("{SHARED_ALLOWED.address4}", 443), 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.settimeout(2)
    return made
"""


@case(Group.PATH, control=an_allowed_name)
def a_segment_that_dies_on_the_way_hides_no_name(scene: Scene) -> Iterator[str]:
    """The first piece with a life of one hop, the rest at once: the far side gets them in another order than the filter.

    "Disorder" of circumvention tools (GoodbyeDPI, zapret, ByeDPI), which needs no right at all.
    """
    run(
        scene,
        _BEGIN
        + """
for cut in (1, at + 4):
    with refused(), flow() as said:
        said.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        said.send(denied[:cut])
        said.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        said.send(denied[cut:])
        said.recv(100)
""",
    )
    yield from scene.requests_naming(SHARED_DENIED.name)


@case(Group.PATH, control=an_allowed_name)
def a_byte_out_of_band_hides_no_name(scene: Scene) -> Iterator[str]:
    """An urgent byte in the middle of the name: readers that take it into the stream see another name (RFC 6093).

    The far side's sockets leave it out, as sockets do unless they are told; so must whoever judges.
    """
    run(
        scene,
        _BEGIN
        + """
for cut in (at + 1, at + 5, 3, 6):
    with refused(), flow() as said:
        said.send(denied[:cut])
        said.send(b"a", socket.MSG_OOB)
        said.send(denied[cut:])
        said.recv(100)
""",
    )
    yield from scene.requests_naming(SHARED_DENIED.name)


@case(Group.PATH, control=an_allowed_name)
def fast_open_sends_nothing_ahead_of_the_decision(scene: Scene) -> Iterator[str]:
    """TCP Fast Open (RFC 7413): data in the first packet, to denied hosts and to allowed ones with a denied name.

    Filters that judge once a connection is established, or when data comes behind the handshake, are too late.
    """
    run(
        scene,
        f"""
        lookup("{ALLOWED.name}")
        hello = client_hello("{DENIED.name}")
        for address in ("{DENIED.address4}", "{DENIED.address6}", "{ALLOWED.address4}", "{ALLOWED.address6}"):
            for port in (80, 443):
                # The first time a cookie is asked for, the second time it would be used.
                for _ in range(2):
                    with refused(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as flow:
                        flow.settimeout(0.5)
                        flow.sendto(hello, 0x20000000, (address, port))
                        flow.recv(100)
                    with refused(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as flow:
                        flow.settimeout(0.5)
                        flow.setsockopt(socket.IPPROTO_TCP, 30, 1)
                        flow.connect((address, port))
                        flow.send(hello)
        """,
    )
    yield from scene.packets_to(DENIED.address4, DENIED.address6)
    yield from scene.bytes_to(ALLOWED.address4, ALLOWED.address6)


@case(
    Group.PATH,
    control=an_allowed_name,
    closed_in_the_open="Both ends are the box's own, there too; only who turns such flows round would let them out.",
)
def a_connection_with_itself_leads_nowhere_else(scene: Scene) -> Iterator[str]:
    """Two ends that call each other at once, or one that calls itself: streams without a SYN/ACK (RFC 9293 §3.5).

    State machines that wait for the usual three packets lose their place.
    """
    run(
        scene,
        f"""
        for place in ("{DENIED.address4}", "{ALLOWED.address4}"):
            for port in (80, 443):
                with refused(), socket.socket() as flow:
                    flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    flow.settimeout(0.3)
                    flow.bind(("127.0.0.1", port))
                    flow.connect((place, port))
                    flow.send(b"from loopback")
        with refused(), socket.socket() as own:
            own.settimeout(0.5)
            own.bind(("127.0.0.1", 40009))
            own.connect(("127.0.0.1", 40009))
            own.send(b"itself")
        """,
    )
    yield from scene.packets_to(DENIED.address4)
