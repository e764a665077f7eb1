"""What the first bytes are: certain, and the same however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.first_bytes import FirstBytes, classify_first_bytes
from support.hellos import hello

CASES = {
    # what TLS servers could take
    "a ClientHello": (hello("a.test"), FirstBytes.TLS),
    "one byte of a handshake record": (b"\x16", FirstBytes.TLS),
    "a handshake record of an unknown version": (b"\x16\x02", FirstBytes.TLS),
    "a warning alert before the hello": (b"\x15\x03\x01\x00\x02\x01\x00", FirstBytes.TLS),
    "a first byte that may begin an alert": (b"\x15", FirstBytes.UNKNOWN),
    "an SSLv2 hello that offers TLS": (b"\x80\x2e\x01\x03\x01\x00\x15", FirstBytes.TLS),
    "an SSLv2 hello": (b"\x80\x2e\x01\x00\x02\x00\x15", FirstBytes.TLS),
    "a length that may begin an SSLv2 hello": (b"\x80\x2e\x01", FirstBytes.UNKNOWN),
    # what HTTP servers could take
    "a request": (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", FirstBytes.HTTP),
    "a request behind empty lines": (b"\r\n\r\nPOST /x HTTP/1.1\r\n", FirstBytes.HTTP),
    "a request behind blanks": (b" \t GET / HTTP/1.1\r\n", FirstBytes.HTTP),
    "a request in lower case": (b"get / http/1.1\r\n", FirstBytes.HTTP),
    "a request with a tab": (b"GET\t/\tHTTP/1.1\r\n", FirstBytes.HTTP),
    "a request with a made-up method": (b"X-ANY / HTTP/1.0\n", FirstBytes.HTTP),
    "a request with a control character behind the version": (b"POST / HTTP/1.1\x01\r\n", FirstBytes.HTTP),
    "HTTP/0.9": (b"GET /\r\n", FirstBytes.HTTP),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FirstBytes.HTTP),
    "the PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", FirstBytes.HTTP),
    "the PROXY protocol, version 2": (b"\r\n\r\n\x00\r\nQUIT\n!", FirstBytes.HTTP),
    # what no server takes for either
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", FirstBytes.OPAQUE),
    "SMTP": (b"EHLO box.test\r\n", FirstBytes.OPAQUE),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", FirstBytes.OPAQUE),
    "PostgreSQL": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", FirstBytes.OPAQUE),
    "MySQL, whose length looks like a space": (b"\x20\x00\x00\x01\x85\xa6", FirstBytes.OPAQUE),
    "LDAP": (b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\x00\x80\x00", FirstBytes.OPAQUE),
    "AMQP": (b"AMQP\x00\x00\x09\x01", FirstBytes.OPAQUE),
    "memcached": (b"get key\r\n", FirstBytes.OPAQUE),
    "a response": (b"HTTP/1.1 200 OK\r\n", FirstBytes.OPAQUE),
    "high bytes": (b"\xff\xfe\xfd", FirstBytes.OPAQUE),
    # what may still become a request
    "nothing": (b"", FirstBytes.UNKNOWN),
    "an unfinished line": (b"POST / HT", FirstBytes.UNKNOWN),
    "a word": (b"ruok", FirstBytes.UNKNOWN),
    "empty lines": (b"\r\n\r\n", FirstBytes.UNKNOWN),
}


@pytest.mark.parametrize(("data", "kind"), CASES.values(), ids=CASES.keys())
def test_kind(data: bytes, kind: FirstBytes) -> None:
    assert classify_first_bytes(data) is kind


@pytest.mark.parametrize("data", [b"", b"ruok", b"POST / HT", b"\x15", b"\x80\x2e\x01", b"\r\n\r\n"])
def test_an_unknown_beginning_that_is_all_is_neither(data: bytes) -> None:
    assert classify_first_bytes(data, is_all=True) is FirstBytes.OPAQUE


def test_an_unfinished_request_line_that_is_all_is_still_http() -> None:
    assert classify_first_bytes(b"POST / HTTP/1.1", is_all=True) is FirstBytes.HTTP


_BEGINNINGS = (
    st.sampled_from([data for data, _ in CASES.values()])
    | st.binary(max_size=40)
    | st.text(alphabet="GETPOSHXIR/12. \t\r\n\x00\x01\x0b:", max_size=30).map(str.encode)
)


@given(_BEGINNINGS, st.binary(max_size=20))
def test_once_known_it_stays_what_it_is(data: bytes, more: bytes) -> None:
    whole = data + more
    known = [
        kind for end in range(len(whole) + 1) if (kind := classify_first_bytes(whole[:end])) is not FirstBytes.UNKNOWN
    ]
    assert len(set(known)) <= 1


@given(
    st.binary(max_size=10), st.text(alphabet="ABCXYZ", min_size=1, max_size=8), st.sampled_from(["/", "http://b.test/"])
)
def test_nothing_that_reads_like_a_request_passes_for_neither(blank: bytes, method: str, target: str) -> None:
    before = bytes(byte for byte in blank if byte in b"\r\n\t ")
    request = before + f"{method} {target} HTTP/1.1\r\n".encode()
    kinds = {classify_first_bytes(request[:end]) for end in range(1, len(request) + 1)}
    assert kinds <= {FirstBytes.UNKNOWN, FirstBytes.HTTP}
    assert classify_first_bytes(request) is FirstBytes.HTTP
