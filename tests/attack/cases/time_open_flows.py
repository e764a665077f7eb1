"""Flows that are open when their rule goes.

Filters that judge a flow's first packet let it live for ever after: Kubernetes calls it implementation defined, Calico
(issue 2759), Weave (2618) and kube-network-policies (246) were all told of it.
"""

from collections.abc import Callable, Iterator
from textwrap import dedent

from attack.case import Group, case
from attack.motion import goes_on, has_bytes, in_motion
from attack.moving import ADDRESSES, NARROW, REQUEST, a_kept_name_keeps_its_flow, box_of
from attack.scene import Ability, Rules, Scene
from attack.world import ALLOWED, ALSO, DENIED, IN_NO_NETWORK
from outgate.cli.demo.journal import Journal

NAME, ADDRESS = ALLOWED.name, ALLOWED.address4
ENDLESS = f"b'GET /endless?rate=200000 HTTP/1.1\\r\\nHost: {NAME}\\r\\n\\r\\n'"


def _tightened(
    scene: Scene,
    source: str,
    *addresses: str,
    begun: Callable[[Journal], object],
    wide: Rules | None = None,
    says: bool = False,
) -> Iterator[str]:
    """Run ``source``, take the rule away once it has ``begun``, let it go on, and see what still arrives.

    If ``source`` ``says`` by itself what got through, it ends by itself, too.
    """
    box = box_of(scene) if wide is None else box_of(scene, wide)
    with in_motion(scene, box, f"lookup('{NAME}')\nlookup('{ALSO.name}')\n{dedent(source)}") as motion:
        motion.await_far(begun, "the flow")
        box.apply(NARROW)
        if not says:
            yield from goes_on(scene, *addresses, motion=motion if "await_go" in source else None)
            return
        motion.go()
        yield from motion.running.result().splitlines()


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_busy_tls_flow_ends_with_its_name(scene: Scene) -> Iterator[str]:
    """Requests over one TLS connection: only the handshake was ever judged, and it was fine then."""
    yield from _tightened(
        scene,
        f"""
        with refused(), socket.create_connection(("{ADDRESS}", 443), 5) as plain:
            with unchecked_tls().wrap_socket(plain, server_hostname="{NAME}") as flow:
                keep_asking(flow, TOKEN, {REQUEST})
        """,
        *ADDRESSES,
        begun=lambda journal: [c for c in journal.connections if c.address == ADDRESS and len(c.requests) > 1],
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_silent_flow_does_not_wake_up_after_its_name_is_gone(scene: Scene) -> Iterator[str]:
    """Connections that lie idle through the change: pools of clients keep them for minutes, and nothing shows them."""
    yield from _tightened(
        scene,
        f"""
        flows = [socket.create_connection((address, 80), 5) for address in {ADDRESSES}]
        for flow in flows:
            flow.sendall({REQUEST})
            flow.recv(100)
        await_go(TOKEN)
        for flow in flows:
            with refused():
                flow.sendall({REQUEST})
        """,
        *ADDRESSES,
        begun=lambda journal: has_bytes(ADDRESSES[0])(journal) and has_bytes(ADDRESSES[1])(journal),
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_download_stops_with_its_name(scene: Scene) -> Iterator[str]:
    """A stream that the far side sends without being asked again: no packet of the box's own has to be let through."""
    yield from _tightened(
        scene,
        f"""
        with socket.create_connection(("{ADDRESS}", 80), 5) as flow:
            flow.sendall({ENDLESS})
            flow.recv(100)
            await_go(TOKEN)
            if count := received(flow):
                print(count, "bytes of the download came after the change")
        """,
        begun=has_bytes(ADDRESS),
        says=True,
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def an_upload_stops_with_its_name(scene: Scene) -> Iterator[str]:
    """The body of one request that began before the change: a proxy that judges requests has judged this one."""
    yield from _tightened(
        scene,
        f"""
        with refused(), socket.create_connection(("{ADDRESS}", 80), 5) as flow:
            flow.settimeout(1)
            flow.sendall(b"POST /echo HTTP/1.1\\r\\nHost: {NAME}\\r\\nContent-Length: 99999999\\r\\n\\r\\n")
            while going(TOKEN):
                flow.sendall(b"secret" * 100)
        """,
        *ADDRESSES,
        begun=lambda journal: [c for c in journal.connections if c.address == ADDRESS and c.bytes_in > 2000],
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def half_a_flow_is_not_forgotten(scene: Scene) -> Iterator[str]:
    """A flow of which the box has closed its half: the other half goes on bringing data in, and few tables look at it."""
    yield from _tightened(
        scene,
        f"""
        with refused(), socket.create_connection(("{ADDRESS}", 19), 5) as flow:
            flow.sendall(b"that is all\\n")
            flow.shutdown(socket.SHUT_WR)
            flow.recv(100)
            await_go(TOKEN)
            if count := received(flow):
                print(count, "bytes came through the half that was left")
        """,
        begun=lambda journal: [c for c in journal.connections if c.address == ADDRESS and c.bytes_in and c.bytes_out],
        says=True,
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_websocket_ends_with_its_name(scene: Scene) -> Iterator[str]:
    """After its 101 a WebSocket is no HTTP any more: whoever judges by requests never sees another one."""
    yield from _tightened(
        scene,
        f"""
        with refused(), socket.create_connection(("{ADDRESS}", 80), 5) as flow:
            flow.sendall(b"GET /ws HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
                         b"Sec-WebSocket-Key: MDEy\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
            flow.recv(1000)
            keep_asking(flow, TOKEN, b"\\x81\\x84\\0\\0\\0\\0ping")
        """,
        *ADDRESSES,
        begun=lambda journal: [c for c in journal.connections if c.address == ADDRESS and c.bytes_in > 250],
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def flows_that_no_name_was_read_of_end_too(scene: Scene) -> Iterator[str]:
    """Protocols other than TLS and HTTP, where the server speaks first or nobody says a name: SSH, databases, mail."""
    yield from _tightened(
        scene,
        f"""
        import threading
        def hold(port):
            with refused(), socket.create_connection(("{ADDRESS}", port), 5) as flow:
                keep_asking(flow, TOKEN, b"still here\\n")
        threads = [threading.Thread(target=hold, args=(port,)) for port in (7, 22)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
        *ADDRESSES,
        begun=lambda journal: has_bytes(ADDRESS, 7)(journal) and has_bytes(ADDRESS, 22)(journal),
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def the_rest_of_a_hello_does_not_follow(scene: Scene) -> Iterator[str]:
    """A ClientHello of which half was sent before the change: the old rules must not judge what comes after it."""
    yield from _tightened(
        scene,
        f"""
        hello = client_hello("{NAME}")
        request = {REQUEST}
        pairs = [(443, hello), (443, hello), (80, request), (80, request)]
        begun = socket.create_connection(("{ALSO.address4}", 80), 5)
        flows = [socket.create_connection(("{ADDRESS}", port), 5) for port, _ in pairs]
        cuts = [5, len(hello) // 2, 4, len(request) - 2]
        for flow, (_, data), cut in zip(flows, pairs, cuts):
            flow.sendall(data[:cut])
        begun.sendall({REQUEST.replace(NAME, ALSO.name)})
        await_go(TOKEN)
        for flow, (_, data), cut in zip(flows, pairs, cuts):
            with refused():
                flow.sendall(data[cut:])
        """,
        *ADDRESSES,
        begun=has_bytes(ALSO.address4),
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def the_rest_of_a_request_does_not_follow(scene: Scene) -> Iterator[str]:
    """A request whose head, or half of whose body, had passed when the rule went, and the next one behind it."""
    head = f"POST /echo HTTP/1.1\\r\\nHost: {NAME}\\r\\n"
    yield from _tightened(
        scene,
        f"""
        halves = [(b"{head}Content-Length: 12\\r\\n\\r\\nsecret", b"secret" + {REQUEST}),
                  (b"{head}Transfer-Encoding: chunked\\r\\n\\r\\n6\\r\\nsecret\\r\\n", b"6\\r\\nsecret\\r\\n0\\r\\n\\r\\n"),
                  (b"{head}Content-Length: 0\\r\\n\\r\\n", {REQUEST})]
        flows = [socket.create_connection(("{ADDRESS}", 80), 5) for _ in halves]
        for flow, (first, _) in zip(flows, halves):
            flow.sendall(first)
        await_go(TOKEN)
        for flow, (_, second) in zip(flows, halves):
            with refused():
                flow.sendall(second)
        """,
        *ADDRESSES,
        begun=has_bytes(ADDRESS, 80, count=3),
    )


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE, Ability.EVERYTHING))
def what_everything_allowed_is_closed_with_it(scene: Scene) -> Iterator[str]:
    """From a rule that allows everything to a list: the flows in between were never looked at, by whatever protocol."""
    yield from _tightened(
        scene,
        f"""
        import threading
        def hold(kind, address):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with refused(), socket.socket(family, kind) as flow:
                flow.connect((address, 7))
                keep_asking(flow, TOKEN, b"still here\\n")
        places = [(kind, address) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                  for address in ("{DENIED.address4}", "{DENIED.address6}", "{IN_NO_NETWORK}")]
        threads = [threading.Thread(target=hold, args=place) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
        DENIED.address4,
        DENIED.address6,
        IN_NO_NETWORK,
        begun=lambda journal: (
            len({c.address for c in journal.connections}) == len({d.address for d in journal.datagrams}) == 3
        ),
        wide=Rules(everything=True),
    )
