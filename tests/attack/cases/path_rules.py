"""Rules by address, protocol and port: what lies just outside of them, or would ride on them."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import OPEN
from attack.paths import protocols_to, run, what_rules_open
from attack.scene import Ability, CidrRule, Rules, Scene
from attack.world import DENIED, TALKATIVE, TALKATIVE_PORTS

_NEEDS = (Ability.ADDRESS_RULES,)


@case(Group.PATH, control=what_rules_open, needs=_NEEDS)
def a_port_beside_the_allowed_one_is_not_reached(scene: Scene) -> Iterator[str]:
    """One port outside of each end of what a rule opens, and port 0.

    Ranges that end one too far; 16-bit arithmetic that wraps; and port 0, which some matchers take for "any".
    """
    ports = (0, 1, 6, 8, 22, 80, 443, 8442, 8444, 65535)
    run(scene, f"fire(targets((TCP, UDP), ('{OPEN}',), {ports}))")
    for port in ports:
        yield from scene.packets_to(OPEN, port=port)


@case(Group.PATH, control=what_rules_open, needs=_NEEDS)
def a_protocol_that_the_rule_does_not_name_is_not_open(scene: Scene) -> Iterator[str]:
    """UDP where TCP is allowed on that port, and echoes where only ports are.

    Matchers that read ports at a fixed offset and never ask whose header it is.
    """
    run(scene, f"fire([(UDP, '{OPEN}', 8443), (PING, '{OPEN}', 7)])")
    yield from scene.packets_to(OPEN, port=8443)
    yield from protocols_to(scene, (1,), OPEN)


@case(Group.PATH, control=what_rules_open, needs=_NEEDS)
def a_socket_that_was_allowed_does_not_take_its_right_elsewhere(scene: Scene) -> Iterator[str]:
    """The same source port, the same socket, to another host: what is remembered is the flow and not the sender.

    NATs that map a source port for everybody ("full cone", RFC 3489) and filters that remember it likewise.
    """
    run(
        scene,
        f"""
        denied = (("{DENIED.address4}", 7), ("{OPEN}", 443), ("{DENIED.address4}", 53000))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            flow.settimeout(1)
            flow.sendto(b"allowed", ("{OPEN}", 7))
            with refused():
                flow.recv(100)
            for place in denied:
                with refused():
                    flow.sendto(b"denied", place)
        with socket.create_connection(("{OPEN}", 7), 3) as allowed:
            mine = allowed.getsockname()
            for place in denied:
                with refused(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as flow:
                    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                        flow.setsockopt(socket.SOL_SOCKET, option, 1)
                    flow.settimeout(0.5)
                    flow.bind(mine)
                    flow.connect(place)
                    flow.sendall(b"denied")
        """,
    )
    yield from scene.packets_to(DENIED.address4)
    yield from scene.packets_to(OPEN, port=443)


@case(Group.PATH, control=what_rules_open, needs=_NEEDS)
def a_source_port_of_a_service_is_no_right(scene: Scene) -> Iterator[str]:
    """From ports 20, 53, 67, 80, 123 and 443: filters that take such packets for answers.

    Windows' and early firewalls' "allow source port 53/88" rules were passed with nmap's ``--source-port``.
    """
    run(
        scene,
        f"""
        for port in (20, 53, 67, 80, 88, 123, 443):
            for kind in (TCP, UDP):
                with refused(), opened(kind, "{DENIED.address4}") as flow:
                    flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    flow.bind(("", port))
                    flow.settimeout(0.5)
                    flow.connect(("{DENIED.address4}", 7))
                    flow.send(b"denied")
        """,
    )
    yield from scene.packets_to(DENIED.address4)


_TALKATIVE_RULES = Rules(cidrs=(CidrRule(f"{TALKATIVE.address4}/32", "TCP", TALKATIVE_PORTS),))


def a_talkative_host_is_reached(scene: Scene) -> bool:
    """The twin of its promises: its port answers."""
    run(scene, f"print(exchange('{TALKATIVE.address4}', 21, b'NOOP\\r\\n'))", rules=_TALKATIVE_RULES)
    return any(c.address == TALKATIVE.address4 and c.port == 21 and c.bytes_in for c in scene.journal().connections)


@case(Group.PATH, control=a_talkative_host_is_reached, needs=_NEEDS)
def a_helper_for_a_protocol_opens_nothing(scene: Scene) -> Iterator[str]:
    """Commands and answers of FTP, SIP, IRC and H.323 that name a denied host: connection tracking's helpers open it.

    NAT slipstreaming (Kamkar, 2020) made browsers say such lines; "Secure use of iptables and connection tracking
    helpers" (2012) is why they are no longer assigned by themselves.
    """
    run(
        scene,
        f"""
        commas = "{DENIED.address4}".replace(".", ",")
        mine = opened(UDP, "{TALKATIVE.address4}")
        mine.connect(("{TALKATIVE.address4}", 9))
        own = mine.getsockname()[0].replace(".", ",")
        sip = "SIP/2.0 200 OK\\r\\nVia: SIP/2.0/TCP x\\r\\nContact: <sip:x@{DENIED.address4}:7>\\r\\nContent-Length: 60\\r\\n\\r\\n"
        sip += "v=0\\r\\no=- 0 0 IN IP4 {DENIED.address4}\\r\\nc=IN IP4 {DENIED.address4}\\r\\nm=audio 7 RTP/AVP 0\\r\\n"
        numeric = struct.unpack("!I", socket.inet_aton("{DENIED.address4}"))[0]
        for port, said in (
            (21, f"227 Entering Passive Mode ({{commas}},0,7)\\r\\n"),
            (21, f"PORT {{commas}},0,7\\r\\n"),
            (21, f"PORT {{own}},0,7\\r\\n"),
            (21, "229 Entering Extended Passive Mode (|1|{DENIED.address4}|7|)\\r\\n"),
            (21, "EPRT |1|{DENIED.address4}|7|\\r\\n"),
            (5060, sip),
            (6667, f"PRIVMSG x :\\x01DCC SEND x {{numeric}} 7\\x01\\r\\n"),
        ):
            with refused(), socket.create_connection(("{TALKATIVE.address4}", port), 3) as flow:
                # It is echoed, so that both ends have said it.
                flow.settimeout(3)
                flow.sendall(said.encode())
                flow.recv(65536)
                fire(targets((TCP, UDP), ("{DENIED.address4}",), (7, 8)), wait_s=0.3)
        """,
        rules=_TALKATIVE_RULES,
    )
    yield from scene.packets_to(DENIED.address4)
