"""Queries: what is one, what is none, and that what we write says what was asked."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.dns import DnsFormatError, ResponseCode
from outgate.wire.dns_query import parse_query, parse_query_id, render_query

_NAMES = st.from_regex(r"\A[a-zA-Z0-9_-]{1,20}(\.[a-zA-Z0-9-]{1,20}){0,6}\Z")


@given(_NAMES, st.integers(1, 255), st.integers(0, 65535), st.booleans(), st.integers(0, 9000), st.booleans())
def test_queries_of_dnspython_are_understood(  # noqa: PLR0917 - hypothesis passes them in order
    name: str, record_type: int, query_id: int, has_edns: bool, size: int, dnssec_ok: bool
) -> None:
    options = {"use_edns": 0, "payload": size, "want_dnssec": dnssec_ok} if has_edns else {"use_edns": -1}
    asked = dns.message.make_query(name, dns.rdatatype.RdataType.make(record_type), id=query_id, **options)  # type: ignore[arg-type] # options of mixed types
    query = parse_query(asked.to_wire())
    assert query.id == query_id
    assert query.wire_name == asked.question[0].name.canonicalize().to_wire()
    assert (query.record_type, query.record_class) == (record_type, 1)
    assert query.has_edns == has_edns
    assert query.dnssec_ok == (has_edns and dnssec_ok)
    assert query.udp_bytes_max == (min(max(size, 512), 1232) if has_edns else 512)
    assert query.question == asked.to_wire()[12 : 12 + len(query.question)]


@given(st.binary(max_size=600))
def test_any_bytes_give_a_query_or_the_typed_error(message: bytes) -> None:
    try:
        query = parse_query(message)
    except DnsFormatError:
        return
    assert len(query.wire_name) <= 255


@given(st.binary(min_size=0, max_size=60), st.integers(0, 80), st.binary(max_size=4))
def test_a_query_with_changed_bytes_gives_a_query_or_the_typed_error(tail: bytes, at: int, change: bytes) -> None:
    message = dns.message.make_query("www.example.com", "A", use_edns=0).to_wire() + tail
    try:
        parse_query(message[:at] + change + message[at + len(change) :])
    except DnsFormatError:
        return


def make(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0), body: bytes | None = None) -> bytes:
    question = b"\3www\7example\3com\0\0\1\0\1" if body is None else body
    return struct.pack(">HHHHHH", 7, flags, *counts) + question


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (make(counts=(0, 0, 0, 0), body=b""), ResponseCode.FORMERR),
        (make(counts=(2, 0, 0, 0)), ResponseCode.FORMERR),
        (make(counts=(1, 1, 0, 0)), ResponseCode.FORMERR),
        (make(counts=(1, 0, 1, 0)), ResponseCode.FORMERR),
        (make(counts=(1, 0, 0, 2)), ResponseCode.FORMERR),
        (make() + b"\0", ResponseCode.FORMERR),
        (make(body=b"\3www\xc0\x0c\0\1\0\1"), ResponseCode.FORMERR),
        (make(body=b"\3www\0\0\1"), ResponseCode.FORMERR),
        (make(body=(b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"), ResponseCode.FORMERR),
        (make(counts=(1, 0, 0, 1)) + b"\0\0\x29\4\xd0\0\1\0\0\0\0", ResponseCode.FORMERR),
        (make(counts=(1, 0, 0, 1)) + b"\0\0\xfa\4\xd0\0\0\0\0\0\0", ResponseCode.FORMERR),
        (make(counts=(1, 0, 0, 1)) + b"\0\0\x29\4\xd0\0\0\0\0\0\5\0", ResponseCode.FORMERR),
        (make(flags=0x2900), ResponseCode.NOTIMP),
    ],
    ids=[
        "no question", "two questions", "an answer", "an authority", "two additionals", "bytes behind",
        "a compressed question", "cut off", "a name over 255 bytes", "EDNS version 1", "TSIG", "an OPT record cut off",
        "another opcode",
    ],
)  # fmt: skip
def test_what_is_refused(message: bytes, code: ResponseCode) -> None:
    with pytest.raises(DnsFormatError) as caught:
        parse_query(message)
    assert caught.value.response_code == code
    assert parse_query_id(message) == 7


def test_responses_and_scraps_are_not_even_refused() -> None:
    with pytest.raises(DnsFormatError):
        parse_query(make(flags=0x8100))
    assert parse_query_id(make(flags=0x8100)) is None
    assert parse_query_id(b"\0\7\1\0") is None


@given(_NAMES, st.integers(1, 255), st.integers(0, 65535), st.booleans(), st.booleans())
def test_what_we_ask_is_canonical(
    name: str, record_type: int, query_id: int, dnssec_ok: bool, checking_disabled: bool
) -> None:
    wire = dns.name.from_text(name).canonicalize().to_wire() or b""
    message = render_query(query_id, wire, record_type, dnssec_ok=dnssec_ok, checking_disabled=checking_disabled)
    read = dns.message.from_wire(message)
    flags = dns.flags.RD | (dns.flags.CD if checking_disabled else 0)
    assert (read.id, read.flags) == (query_id, flags)
    assert read.question[0].name.to_wire() == wire
    assert read.question[0].rdtype == record_type
    assert (read.edns, read.payload, read.options) == (0, 1232, ())
    assert bool(read.ednsflags & dns.flags.DO) == dnssec_ok
