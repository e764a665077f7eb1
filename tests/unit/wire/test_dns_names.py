"""Names in wire form: against dnspython, against the one parser of names, and against anything at all."""

import dns.exception
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.names import HostNameError, parse_domain_name
from outgate.wire.dns import LOWER, DnsFormatError, host_name, read_name, shown_name, skip_plain_name, wire_name

_HOST_TEXTS = st.from_regex(r"\A[a-zA-Z0-9_-]{1,12}(\.[a-zA-Z0-9_-]{1,12}){0,5}\Z")
_LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=8)


def join(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


@given(_HOST_TEXTS)
def test_the_quick_parser_agrees_with_the_one_parser(text: str) -> None:
    wire = join([label.encode() for label in text.lower().split(".")])
    try:
        expected = parse_domain_name(text)
    except HostNameError:
        expected = None
    assert host_name(wire) == expected


@given(_LABELS)
def test_whatever_the_quick_parser_accepts_is_in_normal_form_and_comes_back(labels: list[bytes]) -> None:
    wire = join(labels).translate(LOWER)
    name = host_name(wire)
    if name is not None:
        assert parse_domain_name(name) == name
        assert wire_name(name) == wire


def test_a_dot_inside_a_label_is_no_border() -> None:
    assert host_name(join([b"evil.example", b"com"])) is None
    assert host_name(join([b"a", b"b.example", b"com"])) is None


@pytest.mark.parametrize("label_length", [45, 46, 47])
def test_a_length_byte_that_looks_like_a_dot_is_no_dot(label_length: int) -> None:
    label = b"a" * label_length
    assert host_name(join([label, b"com"])) == f"{'a' * label_length}.com"


@pytest.mark.parametrize("labels", [[], [b"1", b"2", b"3", b"4"], [b"0x7f", b"1"], [b"-a", b"com"], [b"a b", b"com"]])
def test_what_is_no_host_name(labels: list[bytes]) -> None:
    assert host_name(join(labels)) is None


@given(st.binary(max_size=80), st.integers(0, 90))
def test_any_bytes_give_a_name_or_the_typed_error(message: bytes, offset: int) -> None:
    try:
        name, behind = read_name(message, offset)
    except DnsFormatError:
        return
    assert name.endswith(b"\0")
    assert len(name) <= 255
    assert offset < behind <= len(message)


@given(st.binary(min_size=13, max_size=120))
def test_compressed_names_are_read_as_dnspython_reads_them(message: bytes) -> None:
    try:
        mine = read_name(message, 12)
    except DnsFormatError:
        mine = None
    try:
        name, used = dns.name.from_wire(message, 12)
        theirs = name.canonicalize().to_wire(), 12 + used
    except dns.exception.DNSException:
        theirs = None
    # Stricter in one point: a pointer into the header, which no honest server writes.
    if mine is not None:
        assert mine == theirs
    elif theirs is not None:
        assert any(byte >= 0xC0 for byte in message[12:])


@given(st.binary(min_size=0, max_size=300))
def test_plain_names_are_a_part_of_all_names(message: bytes) -> None:
    try:
        behind = skip_plain_name(message, 0)
    except DnsFormatError:
        return
    assert read_name(message, 0) == (message[:behind].translate(LOWER), behind)


def test_pointers_in_a_circle_end() -> None:
    with pytest.raises(DnsFormatError):
        read_name(bytes(12) + b"\xc0\x0c", 12)
    with pytest.raises(DnsFormatError):
        read_name(bytes(12) + b"\x01a\xc0\x0c", 12)


def test_names_are_shown_with_what_is_odd_escaped_and_with_an_end() -> None:
    assert shown_name(b"\0") == "."
    assert shown_name(join([b"a.b", b"c\nd", b"com"])) == "a\\046b.c\\010d.com"
    assert len(shown_name(join([b"\xff" * 63] * 3))) <= 256
