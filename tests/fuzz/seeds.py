"""Where the corpora begin: real hellos, queries, answers, requests, archives. ``python -m fuzz seed`` writes them."""

import contextlib
import io
import ssl
import struct
import tarfile
from collections.abc import Mapping
from typing import Final

import dns.message

from support.dns_server import make_records
from support.hellos import extension, hello, hello_message, records, server_name
from support.image_archives import entry, layout_files, saved_files, tar_of

_HOST: Final = b"80-aaaqeayeaudaocajnhf3wai7.tunnel.example.com"
_OTHER_HOST: Final = b"80-aaaqeayeaudaocajnhf3wai6.tunnel.example.com"


def make_seeds() -> Mapping[str, tuple[bytes, ...]]:
    """A few inputs for each target, by its name."""
    requests, responses, hellos, archives = _requests(), _responses(), _hellos(), _archives()
    return {
        "dns_query": _queries(),
        "dns_answer": _answers(),
        "dns_name": tuple(bytes((12,)) + answer for answer in _answers()),
        "dns_stream": tuple(len(query).to_bytes(2, "big") + query for query in _queries()),
        "client_hello": hellos,
        "first_bytes": (
            *hellos,
            *requests,
            b"\x80\x2e\x01\x03\x01",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-x\r\n",
        ),
        "http_requests": requests,
        "http_responses": tuple(bytes((number,)) + each for number in (0x3C, 0x3D, 0x00) for each in responses),
        "relay_flow": tuple(b"\0" + first for first in (*hellos, *requests, b"\1opaque\r\n")),
        "host_name": tuple(
            text.encode()
            for text in (
                *("a.example", "A.Example.", "*.x.example", "xn--bcher-kva.example", "bücher.example", "_dns.a"),
                *("\u212aelvin.example", "a\uff0eexample", "127.1", "0x7f.1", "a..b", "[::1]", "http://a/", "a:1"),
            )
        ),
        "denied_packet": _packets(),
        "netlink": tuple(_logged(packet) for packet in _packets()),
        "tar_stream": archives,
        "layer_tar": archives,
        "image": _images(),
        "build_notes": (
            b'\0[{"id":"%b","names":["localhost/outgate/result:latest"],"layer":""}]' % (b"a" * 64),
            b'\1[{"id":"%b","parent":"%b"},{"id":"%b"}]' % (b"b" * 64, b"c" * 64, b"c" * 64),
            b'\2{"rootfs":{"diff_ids":[]},"config":{"Env":["A=1","PATH=/bin"]}}',
        ),
        "file_words": (b"ready\ndone\n", b"ready\nfailed\n", b"missing\n", b"x" * 70 + b"\n", b"ready"),
        "complaints": (
            b"cat: /x: No such file or directory\n",
            b"sh: 1: cannot create /x: Permission denied\n\nError: building: x\n",
            b'Error: creating build container: "nosuch": image not known\n',
        ),
        "exec_output": (b"\x02one\ntwo\nthree\n", b"\x01no end", b"\x07\xc3\xa9\n" * 20, b"\x03\n\n\n\n"),
        "exec_text": ("aé€😀\n".encode(), b"\xff\xc3\xe2\x82\xf0\x9f\x98", b"plain"),
        "exec_status": (b"0\n", b"255\n", b"256\n", b"7", b"", b"0x1\n", b"1234567\n"),
        "process_name": (b"sh", b"a) Z 1 (b", b"\xff\xfe", b"\xe2\x82", b" \n\t)"),
        "front_answer": responses,
        "front_request": tuple(
            bytes((odd,)) + request.replace(b"a.example", host).replace(b"b.example", _OTHER_HOST)
            for odd, host in ((0, _HOST), (1, _HOST), (1, _OTHER_HOST))
            for request in requests
        ),
        "tunnel_name": (_HOST, _OTHER_HOST, b"0" + _HOST, _HOST.upper(), _HOST + b".", _HOST.replace(b"80", b"65536")),
        "local_requests": (
            b'{"devbox_id":"dbx_1","port":80}',
            b'{"devbox_id":"dbx_1","account_id":"a","name":"n.example","is_tls":true}',
            b'{"type":"run","token":"t","devbox_id":"d","command":"ls","environment":{"A":"b"},"size":{"rows":1,"cols":2}}',
            b'{"type":"open_pty","token":"t","devbox_id":"d","name":"n\xff"}',
        ),
    }


def _queries() -> tuple[bytes, ...]:
    asked = (("a.example", "A", -1), ("www.A-1.example", "AAAA", 0), ("_x._tcp.a.example", "SRV", 0), (".", "NS", -1))
    plain = [dns.message.make_query(name, kind, use_edns=edns, id=7) for name, kind, edns in asked]
    return tuple(each.to_wire() for each in (*plain, dns.message.make_query("a.example", "A", want_dnssec=True, id=7)))


def _answers() -> tuple[bytes, ...]:
    cases = (
        (
            "A",
            ("www.example.com 300 CNAME e.example.net", "e.example.net 60 A 192.0.2.1", "e.example.net 60 A 192.0.2.2"),
        ),
        ("AAAA", ("www.example.com 60 AAAA 2001:db8::1",)),
        ("A", ("evil.example 60 CNAME e.example.net", "e.example.net 60 A 192.0.2.1")),
        ("A", ()),
    )
    found = []
    for kind, answers in cases:
        message = dns.message.make_response(dns.message.make_query("www.example.com", kind, id=7))
        for text in answers:
            owner, ttl, record, data = text.split()
            message.answer.append(make_records(owner, int(ttl), record, [data]))
        if not answers:
            soa = "ns.example.com. admin.example.com. 1 2 3 4 5"
            message.authority.append(make_records("example.com", 60, "SOA", [soa]))
        found.append(message.to_wire())
    return tuple(found)


def _hellos() -> tuple[bytes, ...]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    two_names = server_name(b"a.example")[:4] + b"\0\x18\0\0\x09a.example\0\0\x09b.example"
    return (
        outgoing.read(),
        hello("a.example"),
        hello("b.example", fragment=40),
        hello("a.example", fragment=1)[:400],
        hello(None),
        hello("192.0.2.1"),
        hello("A.Example."),
        records(hello_message(server_name(b"a.example") + server_name(b"b.example"))),
        records(hello_message(two_names)),
        records(hello_message(server_name(b"a.example\0.b.example") + extension(43, b"\x02\x03\x04"))),
        hello("a.example", pad=1200),
    )


def _requests() -> tuple[bytes, ...]:
    return (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n",
        b"GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
        (
            b"POST /p HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
            b"HEAD / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n"
        ),
        (
            b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nX-Runloop-Host: b.example\r\n\r\n",
        b"PUT / HTTP/1.1\r\nhost:a.example\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    )


def _responses() -> tuple[bytes, ...]:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nhi\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: X, close\r\nX: y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
        b"HTTP/1.0 304 \r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
    )


def _packets() -> tuple[bytes, ...]:
    ports = struct.pack(">HH", 40000, 443)
    ends4, ends6 = bytes((10, 0, 0, 2, 45, 45, 46, 1)), bytes(range(32))
    head4 = struct.pack(">BBHHHBBH", 0x45, 0, 24, 0, 0, 64, 6, 0) + ends4
    options4 = struct.pack(">BBHHHBBH", 0x46, 0, 28, 0, 0, 64, 17, 0) + ends4 + bytes(4)
    head6 = struct.pack(">IHBB", 6 << 28, 4, 6, 64) + ends6
    extended6 = struct.pack(">IHBB", 6 << 28, 20, 60, 64) + ends6 + b"\x2c\0" + bytes(6) + b"\x11\0\0\1" + bytes(4)
    return head4 + ports, options4 + ports, head6 + ports, extended6 + ports


def _logged(packet: bytes) -> bytes:
    payload = struct.pack("=HH", 4 + len(packet), 9) + packet + bytes(-len(packet) % 4)
    link = struct.pack("=HH", 8, 4) + b"\0\0\0\7"
    body = bytes(4) + link + payload
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


def _archives() -> tuple[bytes, ...]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name, kind, link in (
                ("d/f", tarfile.REGTYPE, ""),
                ("d", tarfile.DIRTYPE, ""),
                ("s", tarfile.SYMTYPE, "../../canary"),
                ("s/x", tarfile.REGTYPE, ""),
                ("h", tarfile.LNKTYPE, "d/f"),
                ("d/.wh.gone", tarfile.REGTYPE, ""),
                ("x" * 60 + "/" + "é" * 40, tarfile.REGTYPE, ""),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, link
                data = b"data" if name == "d/f" else b""
                info.size, info.mtime = len(data), 1
                archive.addfile(info, io.BytesIO(data))
        # What is behind the two empty blocks pads to a record of 20 blocks; nobody reads it.
        found.append(buffer.getvalue().rstrip(b"\0") + bytes(1024))
    return tuple(found)


def _images() -> tuple[bytes, ...]:
    layer = tar_of([entry("f", b"x")])
    forms = (layout_files([layer], "amd64"), saved_files([layer], "amd64", ["a:1"]))
    archives = [
        tar_of([entry(name, data) for name, data in form.items()]).rstrip(b"\0") + bytes(1024) for form in forms
    ]
    return (*archives, b'{"rootfs":{"diff_ids":["x"]},"config":{"Env":["A=1"]}}')
