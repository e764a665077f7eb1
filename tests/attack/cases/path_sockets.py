"""Options of ordinary sockets that change where packets go, or what they look like."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import EVERYTHING, OPEN
from attack.paths import an_allowed_name, protocols_to, run, what_everything_opens, what_rules_open
from attack.scene import Ability, Scene
from attack.witness import new_token, watching
from attack.world import ALLOWED, DENIED

_BY_ADDRESS = (Ability.ADDRESS_RULES,)
_EVERYTHING = (Ability.ADDRESS_RULES, Ability.EVERYTHING)
_NO_RIGHT = "It needs a right over the network that no box has, this one neither."


@case(
    Group.PATH,
    control=what_rules_open,
    needs=_BY_ADDRESS,
    closed_in_the_open="Linux routers refuse source routes unless they are told otherwise.",
)
def a_source_route_of_an_ordinary_socket_is_not_followed(scene: Scene) -> Iterator[str]:
    """IP_OPTIONS needs no right: the packet goes to the allowed host, which the option asks to send it on.

    RFC 7126 §4.3; hosts that obey still exist, and the answer takes the same way back (Bellovin, 1989).
    """
    run(
        scene,
        f"""
        denied = socket.inet_aton("{DENIED.address4}")
        for kind in (131, 137):
            for waypoint in ("{OPEN}", "{ALLOWED.address4}"):
                options = bytes([kind, 7, 4]) + socket.inet_aton(waypoint) + b"\\0"
                for sort in (TCP, UDP):
                    with refused(), opened(sort, "{DENIED.address4}") as flow:
                        flow.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
                        flow.settimeout(0.3)
                        flow.connect(("{DENIED.address4}", 7))
                        flow.send(b"routed")
        """,
    )
    yield from scene.packets_to(DENIED.address4, OPEN)


@case(Group.PATH, control=an_allowed_name)
def a_routing_header_of_an_ordinary_socket_is_not_followed(scene: Scene) -> Iterator[str]:
    """IPV6_RTHDR by way of an allowed host: the address that a filter sees first is a waypoint (RFC 5095).

    Linux leaves mobility's type 2 and segment routing's type 4 (RFC 8754) to every user.
    """
    run(
        scene,
        f"""
        lookup("{ALLOWED.name}")
        for waypoint, end in (("{ALLOWED.address6}", "{DENIED.address6}"), ("{DENIED.address6}", "{ALLOWED.address6}")):
            hops = [socket.inet_pton(socket.AF_INET6, hop) for hop in (end, waypoint)]
            headers = [bytes([0, 2, kind, 1, 0, 0, 0, 0]) + hops[1] for kind in (0, 2, 3)]
            headers.append(bytes([0, 4, 4, 1, 1, 0, 0, 0]) + hops[0] + hops[1])
            for header in headers:
                for sort in (TCP, UDP):
                    with refused(), opened(sort, end) as flow:
                        flow.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header)
                        flow.settimeout(0.3)
                        flow.connect((end, 443))
                        flow.send(b"routed")
        """,
    )
    yield from scene.packets_to(DENIED.address6)
    yield from protocols_to(scene, (17, 43), ALLOWED.address6)


@case(Group.PATH, control=what_everything_opens, needs=_EVERYTHING)
def a_source_address_that_was_only_bound_goes_nowhere(scene: Scene) -> Iterator[str]:
    """IP_FREEBIND needs no right either: an ordinary program sends under any address (RFC 2827).

    So a source check is owed even where nobody has raw sockets; rp_filter does it for IPv4 alone.
    """
    token = new_token()
    with watching(scene.internet.namespaces.internet) as witness:
        run(
            scene,
            f"""
            freebind = {{socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}}
            for source, destination in (
                ("45.45.47.99", "{DENIED.address4}"), ("{ALLOWED.address4}", "{DENIED.address4}"),
                ("10.9.9.9", "{DENIED.address4}"), ("2a0f:4444:9::9", "{DENIED.address6}"),
                ("{ALLOWED.address6}", "{DENIED.address6}"),
            ):
                for sort in (UDP, TCP):
                    with refused(), opened(sort, destination) as flow:
                        flow.setsockopt(*freebind[flow.family], 1)
                        flow.bind((source, 0))
                        flow.connect_ex((destination, 7))
                        flow.send(b"{token}")
            """,
            rules=EVERYTHING,
        )
        scene.journal()
        yield from witness.told(token, to=(DENIED.address4, DENIED.address6))


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def short_lives_classes_and_sizes_change_no_verdict(scene: Scene) -> Iterator[str]:
    """TTL, hop limit, type of service, priority, no fragmentation, MSS and the bound interface, to a denied host.

    Rules that except a class ("EF is ours"), and fast paths that look at sizes.
    """
    run(
        scene,
        f"""
        settings = [(socket.IPPROTO_IP, socket.IP_TTL, n) for n in (2, 3, 64, 255)]
        settings += [(socket.IPPROTO_IP, socket.IP_TOS, n) for n in (0x10, 0x28, 0xB8, 0xC0, 0xFC)]
        settings += [(socket.SOL_SOCKET, socket.SO_PRIORITY, n) for n in range(7)]
        settings += [(socket.IPPROTO_IP, 10, n) for n in range(4)] + [(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)]
        settings += [(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0"), (socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)]
        for setting in settings:
            for sort in (TCP, UDP):
                for place in (("{DENIED.address4}", 7), ("{OPEN}", 443)):
                    with refused(), opened(sort, place[0]) as flow:
                        with refused():
                            flow.setsockopt(*setting)
                        flow.settimeout(0.1)
                        flow.connect(place)
                        flow.send(bytes(3000 if sort == UDP else 10))
        """,
    )
    yield from scene.packets_to(DENIED.address4)
    yield from scene.packets_to(OPEN, port=443)


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def multipath_tcp_is_no_second_path(scene: Scene) -> Iterator[str]:
    """MPTCP (RFC 8684) to a denied host: subflows that join later, and options that inspecting middleboxes strip.

    Who inspects sees one subflow of a stream that is spread over several (Pearce and Thomas, "Multipath TCP: Breaking
    Today's Networks with Tomorrow's Protocols", Black Hat 2014).
    """
    run(
        scene,
        f"""
        for address in ("{DENIED.address4}", "{DENIED.address6}"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for port in (7, 443):
                with refused(), socket.socket(family, socket.SOCK_STREAM, 262) as flow:
                    flow.settimeout(0.5)
                    flow.connect((address, port))
                    flow.send(b"subflow")
        """,
    )
    yield from scene.packets_to(DENIED.address4, DENIED.address6)


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def sockets_of_other_protocols_send_nothing(scene: Scene) -> Iterator[str]:
    """SCTP, DCCP, UDP-Lite, L2TP, raw IP and packet sockets: whatever of them the kernel gives out.

    Container escapes began in such families again and again (CVE-2020-14386 in packet sockets, CVE-2017-6074 in DCCP).
    """
    run(
        scene,
        f"""
        kinds = [(socket.SOCK_STREAM, 132), (socket.SOCK_SEQPACKET, 132), (6, 33), (socket.SOCK_DGRAM, 136), (2, 115), (3, 1),
                 (3, 255), (3, 6), (3, 17), (3, 47), (3, 50)]
        for address in ("{DENIED.address4}", "{DENIED.address6}", "{ALLOWED.address4}", "{OPEN}"):
            for kind, protocol in kinds:
                with refused(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, protocol) as flow:
                    flow.settimeout(0.2)
                    flow.connect((address, 9))
                    flow.send(b"another protocol")
        for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
            with refused(), socket.socket(socket.AF_PACKET, kind, 0x0008) as wire:
                wire.bind(("eth0", 0x0800))
                wire.send(b"\\xff" * 64)
                print("a packet socket")
        """,
    )
    yield from scene.packets_to(DENIED.address4, DENIED.address6)
    yield from protocols_to(scene, (1, 33, 47, 50, 115, 132, 136, 255), ALLOWED.address4, OPEN)


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS, closed_in_the_open=_NO_RIGHT)
def options_that_need_a_right_are_not_given(scene: Scene) -> Iterator[str]:
    """Marks, foreign addresses with answers, repaired connections: what would make the box's kernel an accomplice.

    SO_MARK is how VPN programs get past their own kill switch; TCP_REPAIR makes connections out of nothing.
    """
    told = run(
        scene,
        """
        for level, option, value in ((socket.SOL_SOCKET, socket.SO_MARK, 1), (socket.IPPROTO_IP, 19, 1),
                                     (socket.IPPROTO_IPV6, 75, 1), (socket.IPPROTO_TCP, 19, 1),
                                     (socket.SOL_SOCKET, 32, 1 << 20), (socket.SOL_SOCKET, 33, 1 << 20)):
            family = socket.AF_INET6 if level == socket.IPPROTO_IPV6 else socket.AF_INET
            with refused(), socket.socket(family, socket.SOCK_STREAM) as flow:
                flow.setsockopt(level, option, value)
                print(f"option {option} of level {level}")
        """,
    )
    yield from told.splitlines()
