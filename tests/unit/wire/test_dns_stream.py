"""Messages in a stream come out the same however the stream is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.dns import DnsFormatError
from outgate.wire.dns_stream import MessageStream, frame


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_cuts_do_not_matter(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, messages))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    stream = MessageStream(1000)
    found: list[bytes] = []
    for start, end in pairwise(places):
        found += stream.receive(data[start:end])
    assert found == messages


def test_a_message_that_is_announced_too_long_is_refused_at_once() -> None:
    with pytest.raises(DnsFormatError):
        MessageStream(1000).receive(b"\x03\xe9")
