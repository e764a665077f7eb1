"""One named case for each way in which two parsers are known to read one request differently."""

import pytest

from outgate.wire.http1 import RequestReader, RequestRefused

_GET = "GET / HTTP/1.1\r\n"
_HOST = "Host: a.test\r\n"
_POST = "POST / HTTP/1.1\r\nHost: a.test\r\n"

REFUSED = {
    # who is meant
    "no Host in 1.1": (_GET + "Accept: */*\r\n\r\n", "Missing mandatory Host"),
    "no Host in 1.0": ("GET / HTTP/1.0\r\n\r\n", "not exactly one Host"),
    "an empty Host": (_GET + "Host:\r\n\r\n", "Host is empty"),
    "two Hosts": (_GET + _HOST + "Host: b.test\r\n\r\n", "Found multiple Host"),
    "two equal Hosts": (_GET + _HOST + _HOST + "\r\n", "Found multiple Host"),
    "a list of Hosts": (_GET + "Host: a.test, b.test\r\n\r\n", "Host is not a host name"),
    "Host with user information": (_GET + "Host: a.test@b.test\r\n\r\n", "Host is not a host name"),
    "Host with a path": (_GET + "Host: a.test/b\r\n\r\n", "Host is not a host name"),
    "Host with a blank": (_GET + "Host: a.test b.test\r\n\r\n", "Host is not a host name"),
    "Host with a bad port": (_GET + "Host: a.test:99999\r\n\r\n", "Host has a port out of range"),
    "Host with an empty port": (_GET + "Host: a.test:\r\n\r\n", "Host is not a host name"),
    "Host as a number": (_GET + "Host: 2130706433\r\n\r\n", "Host is not a host name"),
    "Host that is not ASCII": (_GET + "Host: b\u00fccher.test\r\n\r\n", "Host is not ASCII"),
    "target and Host differ": ("GET http://b.test/ HTTP/1.1\r\n" + _HOST + "\r\n", "Host and request target differ"),
    "target and Host differ in the port": (
        "GET http://a.test:81/ HTTP/1.1\r\n" + _HOST + "\r\n",
        "Host and request target differ",
    ),
    "target with user information": (
        "GET http://b.test@a.test/ HTTP/1.1\r\n" + _HOST + "\r\n",
        "Host is not a host name",
    ),
    "target of another scheme": ("GET https://a.test/ HTTP/1.1\r\n" + _HOST + "\r\n", "malformed request target"),
    "target without a slash": ("GET b.test/ HTTP/1.1\r\n" + _HOST + "\r\n", "malformed request target"),
    "target with a fragment": ("GET http://a.test/#@b.test HTTP/1.1\r\n" + _HOST + "\r\n", "malformed request target"),
    "CONNECT": ("CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "CONNECT is not relayed"),
    "connect in lower case": ("connect b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "malformed request target"),
    # where the body ends
    "Content-Length with Transfer-Encoding": (
        _POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length with Transfer-Encoding",
    ),
    "two Content-Lengths": (_POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "several Content-Lengths"),
    "two equal Content-Lengths": (_POST + "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", "several Content-Lengths"),
    "a list of Content-Lengths": (_POST + "Content-Length: 5, 5\r\n\r\n", "several Content-Lengths"),
    "a signed Content-Length": (_POST + "Content-Length: +5\r\n\r\n", "bad Content-Length"),
    "a negative Content-Length": (_POST + "Content-Length: -5\r\n\r\n", "bad Content-Length"),
    "a hexadecimal Content-Length": (_POST + "Content-Length: 0x5\r\n\r\n", "bad Content-Length"),
    "an enormous Content-Length": (_POST + "Content-Length: 9999999999999999999\r\n\r\n", "malformed Content-Length"),
    "Transfer-Encoding in 1.0": (
        "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding in HTTP/1.0",
    ),
    "another coding": (_POST + "Transfer-Encoding: gzip\r\n\r\n", "Only Transfer-Encoding"),
    "chunked and another coding": (_POST + "Transfer-Encoding: gzip, chunked\r\n\r\n", "Only Transfer-Encoding"),
    "identity and chunked": (_POST + "Transfer-Encoding: chunked, identity\r\n\r\n", "Only Transfer-Encoding"),
    "two Transfer-Encodings": (
        _POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "multiple Transfer-Encoding headers",
    ),
    "a coding behind a vertical tab": (_POST + "Transfer-Encoding: \x0bchunked\r\n\r\n", "illegal header line"),
    "a blank before the colon": (_POST + "Transfer-Encoding : chunked\r\n\r\n", "illegal header line"),
    "Connection that drops the Host": (_GET + _HOST + "Connection: close, Host\r\n\r\n", "Connection names a field"),
    "Connection that drops the length": (
        _POST + "Content-Length: 5\r\nConnection: content-length\r\n\r\n",
        "Connection names a field",
    ),
    # where lines end
    "a bare LF": ("GET / HTTP/1.1\nHost: a.test\n\n", "bare CR, bare LF or NUL"),
    "a bare LF in a value": (_GET + _HOST + "X: y\nHost: b.test\r\n\r\n", "bare CR, bare LF or NUL"),
    "a bare CR in a value": (_GET + _HOST + "X: y\rHost: b.test\r\n\r\n", "bare CR, bare LF or NUL"),
    "CR CR LF": (_GET + _HOST + "X: y\r\r\n\r\n", "bare CR, bare LF or NUL"),
    "a NUL": (_GET + _HOST + "X: y\x00z\r\n\r\n", "bare CR, bare LF or NUL"),
    "a folded line": (_GET + _HOST + "X: y\r\n z\r\n\r\n", "folded header line"),
    "a folded Host": (_GET + "Host:\r\n a.test\r\n\r\n", "folded header line"),
    "a first field that is indented": (_GET + " Host: a.test\r\n\r\n", "folded header line"),
    "an empty line first": ("\r\n" + _GET + _HOST + "\r\n", "not an HTTP/1.0 or HTTP/1.1 request line"),
    # which protocol
    "HTTP/0.9": ("GET /\r\n\r\n", "not an HTTP/1.0 or HTTP/1.1 request line"),
    "HTTP/1.2": ("GET / HTTP/1.2\r\n" + _HOST + "\r\n", "not an HTTP/1.0 or HTTP/1.1 request line"),
    "HTTP/2 prior knowledge": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS is not relayed"),
    "h2c": (
        _GET + _HOST + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        "Upgrade to anything but websocket",
    ),
    "websocket or h2c": (
        _GET + _HOST + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "Upgrade to anything",
    ),
    "an Upgrade to something else": (
        _GET + _HOST + "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        "Upgrade to anything",
    ),
    "an Upgrade with a body": (
        _POST + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\n",
        "Upgrade with a body",
    ),
    "two blanks in the request line": ("GET  / HTTP/1.1\r\n" + _HOST + "\r\n", "not an HTTP/1.0 or HTTP/1.1"),
    "a tab in the request line": ("GET\t/ HTTP/1.1\r\n" + _HOST + "\r\n", "not an HTTP/1.0 or HTTP/1.1"),
    "a blank behind the version": ("GET / HTTP/1.1 \r\n" + _HOST + "\r\n", "not an HTTP/1.0 or HTTP/1.1"),
    "the PROXY protocol": ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + _GET, "not an HTTP/1.0 or HTTP/1.1"),
    "a field without a name": (_GET + _HOST + ": x\r\n\r\n", "illegal header line"),
    "a field without a colon": (_GET + _HOST + "nonsense\r\n\r\n", "illegal header line"),
}


@pytest.mark.parametrize(("request_text", "detail"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(request_text: str, detail: str) -> None:
    reader = RequestReader()
    reader.feed(request_text.encode("latin-1"))
    event = reader.next()
    assert isinstance(event, RequestRefused)
    assert event.detail.startswith(detail)
    reader.feed(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert reader.next() == event, "nothing passes behind a refused request"


@pytest.mark.parametrize("size", ["5", "+5", "0x5", "5_0", "5 x", " 5", "-1", "", "g", "f" * 21])
def test_chunk_sizes_are_read_as_hexadecimal_digits_or_not_at_all(size: str) -> None:
    reader = RequestReader()
    reader.feed((_POST + "Transfer-Encoding: chunked\r\n\r\n").encode())
    reader.next()
    reader.feed(f"{size}\r\nhello\r\n0\r\n\r\n".encode())
    event = reader.next()
    assert isinstance(event, RequestRefused) is (size != "5")
