"""ClientHello: the same answer however the bytes are cut, and only ever one of three answers."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.flow import BadHandshake, TlsHello
from outgate.wire.client_hello import ClientHelloReader, NeedMore
from support.hellos import extension, hello, hello_message, records, server_name

Result = NeedMore | TlsHello | BadHandshake


def read(data: bytes, cuts: list[int] | None = None) -> Result:
    """What a reader says in the end about ``data``, fed in pieces."""
    reader = ClientHelloReader()
    result: Result = reader.feed(b"")
    start = 0
    for cut in [*sorted(set(cuts or [])), len(data)]:
        result = reader.feed(data[start:cut])
        start = max(start, cut)
    return result


def real_hello(name: str | None) -> bytes:
    """What OpenSSL sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("name", ["example.com", "a-very.deep.name.example.org", "xn--bcher-kva.example"])
def test_a_real_hello_names_its_host(name: str) -> None:
    assert read(real_hello(name)) == TlsHello(name)  # type: ignore[arg-type] # the names are in normal form


def test_a_real_hello_without_sni_names_nobody() -> None:
    assert read(real_hello(None)) == TlsHello(None)


@given(st.lists(st.integers(0, 3000)), st.sampled_from([1, 7, 100, 500, 1 << 14]), st.sampled_from([0, 1200, 2000]))
def test_cuts_and_records_do_not_matter(cuts: list[int], fragment: int, pad: int) -> None:
    assert read(hello("example.com", fragment=fragment, pad=pad), cuts) == TlsHello("example.com")  # type: ignore[arg-type] # in normal form


def test_one_byte_at_a_time_needs_more_until_the_last() -> None:
    data = hello("example.com", fragment=3)
    reader = ClientHelloReader()
    answers = [reader.feed(data[i : i + 1]) for i in range(len(data))]
    assert all(isinstance(answer, NeedMore) for answer in answers[:-1])
    assert answers[-1] == TlsHello("example.com")  # type: ignore[arg-type] # in normal form


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_any_bytes_give_an_answer_that_cuts_do_not_change(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts) == read(data)


@given(st.data())
def test_a_damaged_hello_gives_an_answer_that_cuts_do_not_change(data: st.DataObject) -> None:
    damaged = bytearray(hello("example.com", fragment=data.draw(st.sampled_from([40, 1 << 14]))))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert read(bytes(damaged), data.draw(st.lists(st.integers(0, len(damaged))))) == read(bytes(damaged))


@given(st.binary(max_size=100))
def test_what_follows_the_hello_changes_nothing(rest: bytes) -> None:
    assert read(hello("example.com") + rest) == TlsHello("example.com")  # type: ignore[arg-type] # in normal form


_TWO_NAMES = (13 + 14).to_bytes(2, "big") + b"\x00\x00\x0aallow.test" + b"\x00\x00\x0bdenied.test"

BAD = {
    "an alert record before the hello": b"\x15\x03\x01\x00\x02\x01\x00" + hello("example.com"),
    "a record of another major version": records(hello_message(server_name(b"a.test")), version=b"\x02\x00"),
    "SSLv2 hello": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    "an empty record": b"\x16\x03\x01\x00\x00" + hello("example.com"),
    "a record longer than TLS allows": b"\x16\x03\x01\x40\x01" + b"x" * 0x4001,
    "a server hello": b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    "two server name extensions": records(hello_message(server_name(b"a.test") + server_name(b"b.test"))),
    "any extension twice": records(hello_message(extension(43, b"\x02\x03\x04") * 2 + server_name(b"a.test"))),
    "two names in one extension": records(hello_message(extension(0, _TWO_NAMES))),
    "an empty list of names": records(hello_message(extension(0, b"\x00\x00"))),
    "an empty extension": records(hello_message(extension(0, b""))),
    "a name of an unknown type": records(hello_message(server_name(b"a.test", name_type=1))),
    "an empty name": records(hello_message(server_name(b""))),
    "a name with a NUL": records(hello_message(server_name(b"good.test\x00.evil.test"))),
    "a name that is not ASCII": records(hello_message(server_name("bücher.test".encode()))),
    "a name with a space": records(hello_message(server_name(b"a b.test"))),
    "a name with a port": records(hello_message(server_name(b"a.test:443"))),
    "a name longer than names are": records(hello_message(server_name(b"a." * 200 + b"test"))),
    "trailing bytes behind the extensions": records(
        b"\x01" + (len(hello_message(b"")) - 4 + 1).to_bytes(3, "big") + hello_message(b"")[4:] + b"x"
    ),
    "an extension that ends early": records(hello_message(b"\x00\x00\x00\x09\x00")),
    "a session id longer than 32": records(hello_message(b"", session_id=b"s" * 33)),
    "a second hello in the same record": records(
        hello_message(server_name(b"a.test")) + hello_message(server_name(b"b.test"))
    ),
    "an empty hello": records(b"\x01\x00\x00\x00"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad(data: bytes) -> None:
    assert isinstance(read(data), BadHandshake)


NAMELESS = {
    "no extensions at all": records(hello_message(None)),
    "no SNI": records(hello_message(extension(43, b"\x02\x03\x04"))),
    "an IPv4 literal": records(hello_message(server_name(b"192.0.2.1"))),
    "an IPv6 literal": records(hello_message(server_name(b"2001:db8::1"))),
}


@pytest.mark.parametrize("data", NAMELESS.values(), ids=NAMELESS.keys())
def test_nameless(data: bytes) -> None:
    assert read(data) == TlsHello(None)


@pytest.mark.parametrize("spelling", [b"Example.COM", b"example.com."])
def test_the_name_is_normalised(spelling: bytes) -> None:
    assert read(records(hello_message(server_name(spelling)))) == TlsHello("example.com")  # type: ignore[arg-type] # in normal form


def test_with_ech_the_outer_name_counts() -> None:
    extensions = server_name(b"public.test") + extension(0xFE0D, b"\x00" + b"inner.test" * 20)
    assert read(records(hello_message(extensions))) == TlsHello("public.test")  # type: ignore[arg-type] # in normal form
