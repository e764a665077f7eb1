"""Where responses end: known exactly, or known to be unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.http1_response import UNBOUNDED, ResponsesState, ResponseTracker

OK2 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def tracker(*methods: bytes, may_upgrade: bool = False) -> ResponseTracker:
    made = ResponseTracker()
    for method in methods:
        made.expect(method, may_upgrade=may_upgrade)
    return made


def test_nothing_asked_is_complete() -> None:
    assert tracker().state is ResponsesState.COMPLETE


COMPLETE = {
    "a counted body": ([b"GET"], OK2),
    "an empty body": ([b"GET"], b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n"),
    "chunks": ([b"GET"], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nX: y\r\n\r\n"),
    "chunks win over a length": (
        [b"GET"],
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    "an answer to HEAD": ([b"HEAD"], b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
    "no content": ([b"GET"], b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": ([b"GET"], b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "an interim response first": ([b"PUT"], b"HTTP/1.1 100 Continue\r\n\r\n" + OK2),
    "two in a row": ([b"GET", b"HEAD", b"GET"], OK2 + b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + OK2),
    "bare line feeds": ([b"GET"], b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok"),
    "a refused upgrade": ([b"GET"], b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"),
    "a 101 that nobody asked for, then the answer": ([b"GET"], b"HTTP/1.1 101 Switching\r\n\r\n" + OK2),
}


@pytest.mark.parametrize(("methods", "data"), COMPLETE.values(), ids=COMPLETE.keys())
def test_complete_with_the_last_byte_and_not_before(methods: list[bytes], data: bytes) -> None:
    responses = tracker(*methods)
    for index in range(len(data)):
        assert responses.state is ResponsesState.PENDING
        responses.feed(data[index : index + 1])
    assert responses.state is ResponsesState.COMPLETE


@given(st.sampled_from(list(COMPLETE.values())), st.lists(st.integers(0, 150)))
def test_cuts_do_not_matter(case: tuple[list[bytes], bytes], cuts: list[int]) -> None:
    methods, data = case
    responses, start = tracker(*methods), 0
    for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
        responses.feed(data[start:cut])
        start = cut
    assert responses.state is ResponsesState.COMPLETE


UNKNOWN = {
    "a body until the end": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    "not HTTP": b"SSH-2.0-x\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 12000,
    "a bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a bad chunk end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_cannot_be_followed_passes_for_good(data: bytes) -> None:
    responses = tracker(b"GET")
    responses.feed(data)
    assert responses.state is ResponsesState.UNKNOWN
    assert responses.passable == UNBOUNDED
    responses.expect(b"GET", may_upgrade=False)
    assert (responses.state, responses.pending) == (ResponsesState.UNKNOWN, 0)


def test_bytes_that_nobody_asked_for_make_it_unknown() -> None:
    responses = tracker()
    responses.feed(OK2)
    assert responses.state is ResponsesState.UNKNOWN


def test_a_switch_that_was_asked_for() -> None:
    responses = tracker(b"GET", may_upgrade=True)
    responses.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00")
    assert responses.state is ResponsesState.UPGRADED
    assert responses.passable == UNBOUNDED


def test_bodies_may_pass_unread() -> None:
    responses = tracker(b"GET", b"GET")
    responses.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
    assert responses.passable == 99997
    responses.passed(99997)
    assert (responses.passable, responses.pending) == (0, 1)
    responses.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n")
    assert responses.passable == 100000
    responses.passed(100000)
    responses.feed(b"\r\n0\r\n\r\n")
    assert responses.state is ResponsesState.COMPLETE


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_any_bytes_give_the_same_state_however_cut(data: bytes, cuts: list[int]) -> None:
    whole, pieces, start = tracker(b"GET"), tracker(b"GET"), 0
    whole.feed(data)
    for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
        pieces.feed(data[start:cut])
        start = cut
    assert pieces.state is whole.state
