"""The watch for a second hello, against what OpenSSL's servers do."""

import ssl

import pytest
import trustme

from outgate.model.names import DomainName
from outgate.wire.second_hello import SecondHelloWatch, WatchStep
from support.hellos import extension, hello_message, records, server_name

A = DomainName("a.test")
_CERTIFICATE = trustme.CA().issue_cert(A)
WARNING = b"\x15\x03\x01\x00\x02\x01\x70"
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
EARLY_DATA = b"\x17\x03\x03\x00\x02hi"
_SHARE = b"\x00\x1d\x00\x20" + b"\x09".ljust(32, b"\0")


def client_hello(name: str, *, has_share: bool, fragment: int = 1 << 14) -> bytes:
    """A hello for TLS 1.3 and X25519; without a share of the key a server asks for another."""
    shares = _SHARE if has_share else b""
    return records(
        hello_message(
            server_name(name.encode())
            + extension(43, b"\x02\x03\x04")
            + extension(13, b"\x00\x08\x08\x04\x04\x03\x08\x05\x08\x06")
            + extension(10, b"\x00\x02\x00\x1d")
            + extension(51, len(shares).to_bytes(2, "big") + shares)
        ),
        fragment=fragment,
    )


def answer_of_openssl(hello: bytes) -> bytes:
    """A real server's first flight."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _CERTIFICATE.configure_cert(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(hello)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    return outgoing.read()


RETRY_REQUEST = answer_of_openssl(client_hello(A, has_share=False))


def test_openssl_takes_the_name_of_the_second_hello() -> None:
    """What makes the watch needed. Should this fail one day, servers have begun to compare."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _CERTIFICATE.configure_cert(context)
    context.sni_callback = lambda _server, name, _context: names.append(name)
    incoming = ssl.MemoryBIO()
    server = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    for hello in (client_hello("a.test", has_share=False), client_hello("b.test", has_share=True)):
        incoming.write(hello)
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
    assert names == ["a.test", "b.test"]


@pytest.mark.parametrize("before", [b"", WARNING], ids=["at once", "behind a warning"])
@pytest.mark.parametrize("size", [1, 5, 11, 42, 4096])
def test_a_real_request_for_another_hello_keeps_the_watch_however_it_is_cut(before: bytes, size: int) -> None:
    watch, answer = SecondHelloWatch(A), before + RETRY_REQUEST + b"\x14\x03\x03\x00\x01\x01"
    for at in range(0, len(answer), size):
        assert watch.answered(answer[at : at + size]) == WatchStep()
    assert (
        watch.received(client_hello("b.test", has_share=True)).refusal
        == "The second hello names b.test, the first a.test."
    )


def test_a_request_with_a_long_cookie_keeps_the_watch() -> None:
    watch = SecondHelloWatch(A)
    assert watch.answered(RETRY_REQUEST + b"c" * 8000) == WatchStep()
    assert watch.answered(b"c" * 8000) == WatchStep()


def test_a_second_hello_for_the_same_host_ends_the_watch_and_goes_out_as_received() -> None:
    for fragment in (7, 1 << 14):
        second = client_hello("A.test", has_share=True, fragment=fragment)
        watch, wire = SecondHelloWatch(A), b""
        watch.answered(RETRY_REQUEST)
        for at in range(0, len(second), 50):
            step = watch.received(second[at : at + 50])
            assert step.refusal is None
            wire += step.wire
        assert (wire, step.is_over) == (second, True)


def test_what_may_come_before_a_second_hello_passes_at_once() -> None:
    watch = SecondHelloWatch(A)
    assert watch.received(EARLY_DATA + EARLY_DATA[:3]) == WatchStep(EARLY_DATA)
    assert watch.received(EARLY_DATA[3:]) == WatchStep(EARLY_DATA)
    step = watch.received(WARNING + CHANGE_CIPHER_SPEC + client_hello("b.test", has_share=True))
    assert step.wire == WARNING + CHANGE_CIPHER_SPEC
    assert step.refusal is not None


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + b"r" * 32,
        b"\x16\x03\x03\x00\x7a\x0b",
        WARNING + b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + b"r" * 32,
        b"HTTP/1.1 400 Bad Request\r\n",
        b"+",
    ],
    ids=["a server hello", "another message", "a warning and a server hello", "no TLS", "one byte"],
)
def test_any_other_answer_ends_the_watch(answer: bytes) -> None:
    watch = SecondHelloWatch(A)
    assert watch.received(EARLY_DATA[:3]) == WatchStep()
    assert watch.answered(answer) == WatchStep(EARLY_DATA[:3], is_over=True)


def test_a_server_that_closes_and_a_client_that_speaks_no_tls_end_the_watch() -> None:
    assert SecondHelloWatch(A).server_finished() == WatchStep(is_over=True)
    assert SecondHelloWatch(A).received(b"ping") == WatchStep(b"ping", is_over=True)


@pytest.mark.parametrize("kind", [22, 23], ids=["a hello", "early data"])
def test_an_endless_record_is_refused(kind: int) -> None:
    watch = SecondHelloWatch(A)
    head = b"\x16\x03\x01\x00\x04\x01\x00\xff\xff" if kind == 22 else b"\x17\x03\x03\xff\xff"
    step, sent = watch.received(head), 0
    while step.refusal is None:
        assert step == WatchStep()
        step = watch.received(b"\x16\x03\x01\x01\x00" + b"k" * 256)
        sent += 261
    assert sent < 19 * 1024
