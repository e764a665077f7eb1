"""What a name travels in: other ports, other protocols, a change of protocol on the way."""

from collections.abc import Iterator

from h2.connection import H2Connection

from attack.case import Group, case
from attack.cases.names_forged import tls_to_an_allowed_host
from attack.flights import Flight, send
from attack.readings import a_plain_request, requests_read
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, SHARED_ALLOWED, SHARED_DENIED, TAPE, TENANT
from support.hellos import hello

GOOD_REQUEST = f"GET / HTTP/1.1\r\nHost: {TAPE.name}\r\n\r\n".encode()
BAD_REQUEST = f"GET / HTTP/1.1\r\nHost: {TENANT}\r\n\r\n".encode()
PROXY_V1 = b"PROXY TCP4 45.45.45.9 45.45.45.41 1025 80\r\n"
PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x2d\x2d\x2d\x09\x2d\x2d\x2d\x29\x04\x01\x00\x50"


def raw_bytes_where_they_are_allowed(scene: Scene) -> bool:
    """An allowed host's server that speaks first, and one that echoes, on ports that are not the web's."""
    scene.python(f"""
        for address in lookup("{ALLOWED.name}"):
            exchange(address, 7, b"hello\\n", 20)
            with socket.create_connection((address, 22), 20) as flow:
                flow.settimeout(20)
                flow.recv(100)
                flow.sendall(b"EHLO box\\r\\n")
                flow.recv(100)
        """)
    ports = [c.port for c in scene.journal().connections if c.bytes_in and c.host == ALLOWED.name]
    return sorted(ports) == [7, 7, 22, 22]


@case(Group.NAMES, control=a_plain_request)
def the_port_does_not_decide_which_protocol_is_read(scene: Scene) -> Iterator[str]:
    """TLS on 80 and plain HTTP on 443, and both on a port of neither: filters pick the parser by the port number."""
    bad_hello = hello(TENANT)
    send(scene, [bad_hello, BAD_REQUEST, b"\r\n" + BAD_REQUEST], 80, 443, 8080)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6)


@case(Group.NAMES, control=a_plain_request)
def a_handshake_behind_an_allowed_request_is_not_waved_through(scene: Scene) -> Iterator[str]:
    """The first message was good, the rest of the connection is not looked at: a hello follows a request.

    Upgrading to TLS within HTTP/1.1 (RFC 2817) is a standard, so a server may go along.
    """
    upgrade = GOOD_REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n")
    bad = hello(TENANT)
    flights: list[Flight] = [[GOOD_REQUEST, bad], [upgrade, bad], GOOD_REQUEST + bad]
    send(scene, flights, 80, is_answered=True)
    for connection in scene.journal().connections:
        if TENANT.encode() in connection.kept:
            yield f"{connection.kept!r} at {connection.address}"


@case(Group.NAMES, control=raw_bytes_where_they_are_allowed)
def raw_protocols_do_not_pass_on_the_webs_ports(scene: Scene) -> Iterator[str]:
    """Neither TLS nor HTTP on 443 and 80: "unknown protocol, let it pass" makes a tunnel of every allowed address."""
    talk = (b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO box\r\n", b"\x00" * 64, b"\x05\x01\x00", b"\x00\x0e8" + b"\xff" * 16)
    send(scene, talk, 443, 80)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6)


@case(Group.NAMES, control=raw_bytes_where_they_are_allowed)
def a_denied_address_is_not_reached_by_a_server_first_protocol(scene: Scene) -> Iterator[str]:
    """SMTP with STARTTLS, SSH, databases: the server speaks first, so a filter that waits for a name dials at once.

    Bytes of the box's are not the only thing that may not leave: the connection itself tells somebody something.
    """
    scene.python(f"""
        lookup("{ALLOWED.name}")
        for address in ("{DENIED.address4}", "{DENIED.address6}"):
            with refused(), socket.create_connection((address, 22), 2) as flow:
                flow.settimeout(1)
                flow.recv(100)
                flow.sendall(b"EHLO box\\r\\nSTARTTLS\\r\\n")
                flow.sendall(client_hello("{ALLOWED.name}"))
                flow.recv(100)
        """)
    yield from scene.packets_to(DENIED.address4, DENIED.address6)


@case(Group.NAMES, control=raw_bytes_where_they_are_allowed)
def a_client_that_waits_for_the_server_does_not_get_another_name_through(scene: Scene) -> Iterator[str]:
    """The server has spoken, the flow counts as "server first", and only then comes a hello or a request: for a neighbour."""
    scene.python(f"""
        lookup("{SHARED_ALLOWED.name}")
        request = b"GET / HTTP/1.1\\r\\nHost: {SHARED_DENIED.name}\\r\\n\\r\\n"
        for address in ("{SHARED_ALLOWED.address4}", "{SHARED_ALLOWED.address6}"):
            for late in (client_hello("{SHARED_DENIED.name}"), request, client_hello(None)):
                with refused(), socket.create_connection((address, 22), 3) as flow:
                    flow.settimeout(3)
                    flow.recv(100)
                    flow.sendall(late)
                    flow.recv(100)
        """)
    yield from scene.bytes_to(SHARED_ALLOWED.address4, SHARED_ALLOWED.address6, port=22)


@case(Group.NAMES, control=a_plain_request)
def a_preface_for_proxies_does_not_hide_the_request_behind_it(scene: Scene) -> Iterator[str]:
    """The PROXY protocol, both versions, and empty lines: a server behind a balancer skips them, then reads the name."""
    flights = [preface + message for preface in (PROXY_V1, PROXY_V2) for message in (BAD_REQUEST, hello(TENANT))]
    send(scene, flights, 80, 443, 8080)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6)


@case(Group.NAMES, control=tls_to_an_allowed_host)
def quic_and_dtls_do_not_pass_by_the_address_of_an_allowed_name(scene: Scene) -> Iterator[str]:
    """UDP carries names too, in Initial packets whose keys anybody can derive (RFC 9001 §5.2), and few filters read them.

    What cannot be judged must not pass; clients fall back to TCP.
    """
    scene.python(f"""
        lookup("{ALLOWED.name}")
        initial = b"\\xc3\\x00\\x00\\x00\\x01\\x08" + b"d" * 8 + b"\\x00\\x00\\x44\\x9e" + b"q" * 1178
        dtls = b"\\x16\\xfe\\xfd" + bytes(8) + b"\\x00\\x20\\x01" + b"h" * 31
        for address in ("{ALLOWED.address4}", "{ALLOWED.address6}"):
            for port in (443, 80, 7):
                for data in (initial, dtls):
                    udp(address, port, data, 0.05)
        """)
    for packet in scene.journal().packets:
        if packet.protocol == 17 and packet.address in (ALLOWED.address4, ALLOWED.address6):
            yield f"{packet.count} datagrams to {packet.address} port {packet.port}"


def _http2(authority: str, *, upgraded: bool = False) -> bytes:
    connection = H2Connection()
    if upgraded:
        connection.initiate_upgrade_connection()
    else:
        connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", authority)]
    connection.send_headers(stream, fields, end_stream=True)
    return connection.data_to_send()


@case(Group.NAMES, control=a_plain_request)
def http2_without_tls_is_not_relayed_unread(scene: Scene) -> Iterator[str]:
    """Prior knowledge (RFC 9113 §3.3): requests in HPACK, which a reader of HTTP/1 sees as bytes of no protocol."""
    send(scene, [_http2(TENANT), [b"PRI", _http2(TENANT)[3:]]], 80, 8080)
    send(scene, [[GOOD_REQUEST, _http2(TENANT)]], 80, 8080, is_answered=True)
    for connection in scene.journal().connections:
        if b"PRI * HTTP/2" in connection.kept:
            yield f"{connection.kept!r} at {connection.address}"


@case(Group.NAMES, control=a_plain_request)
def an_upgrade_to_http2_does_not_turn_a_relay_into_a_tunnel(scene: Scene) -> Iterator[str]:
    """h2c smuggling (Bishop Fox, 2020): the proxy forwards ``Upgrade: h2c`` and reads no further requests."""
    head = (
        GOOD_REQUEST[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    other = head.replace(b"Upgrade, HTTP2-Settings", b"upgrade").replace(b"h2c", b"H2C")
    both = head.replace(b": h2c", b": websocket, h2c")
    frames = _http2(TENANT, upgraded=True)
    send(scene, [[start, frames] for start in (head, other, both)] + [[head + frames]], 80, is_answered=True)
    for connection in scene.journal().connections:
        if b"h2c" in connection.kept.lower():
            yield f"{connection.kept!r} at {connection.address}"


@case(Group.NAMES, control=a_plain_request)
def a_web_socket_that_the_server_never_agreed_to_is_no_tunnel(scene: Scene) -> Iterator[str]:
    """WebSocket smuggling: the proxy takes the request for the upgrade and stops reading, though no 101 came back.

    The server answers 200 and goes on with HTTP, so the next bytes are a request that nobody judged.
    """
    head = GOOD_REQUEST[:-2] + (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    send(
        scene,
        [[head, BAD_REQUEST], head + BAD_REQUEST, head.replace(TAPE.name.encode(), TENANT.encode())],
        80,
        is_answered=True,
    )
    yield from requests_read(scene)


@case(Group.NAMES, control=a_plain_request)
def the_servers_of_allowed_names_are_not_used_as_proxies(scene: Scene) -> Iterator[str]:
    """CONNECT, and requests in absolute form, to an allowed host that happens to be a proxy as well."""
    connect = f"CONNECT {TENANT}:443 HTTP/1.1\r\nHost: {TAPE.name}\r\n\r\n".encode()
    flights: list[Flight] = [
        connect,
        connect.replace(TAPE.name.encode(), TENANT.encode()),
        connect.replace(b"CONNECT", b"connect"),
        [GOOD_REQUEST, connect],
        b"SOCKS" + connect,
    ]
    send(scene, flights, 80, 8080, is_answered=True)
    for connection in scene.journal().connections:
        if b"connect " in connection.kept.lower():
            yield f"{connection.kept!r} at {connection.address}"
