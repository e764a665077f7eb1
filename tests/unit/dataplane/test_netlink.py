import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.netlink import (
    HEADER_BYTES,
    Message,
    NetlinkError,
    attribute,
    list_attributes,
    message,
    nest,
    parse_attributes,
    parse_errno,
    parse_messages,
    text,
    u8,
    u16_net,
    u32_host,
    u32_net,
    u64_net,
)

KINDS = st.integers(0, 0x3FFF)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=8))
def test_attributes_come_back_as_they_went(wanted: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, content) for kind, content in wanted)
    assert len(data) % 4 == 0
    assert list(list_attributes(data)) == wanted


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=6))
def test_messages_come_back_as_they_went(wanted: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(message(kind, flags, place, body) for place, (kind, flags, body) in enumerate(wanted))
    assert list(parse_messages(data)) == [
        Message(kind, flags, place, body) for place, (kind, flags, body) in enumerate(wanted)
    ]


@given(st.binary(max_size=200))
def test_any_bytes_give_values_or_a_netlink_error(data: bytes) -> None:
    with contextlib.suppress(NetlinkError):
        for each in parse_messages(data):
            parse_errno(each)
    with contextlib.suppress(NetlinkError):
        parse_attributes(data)


@pytest.mark.parametrize("length", [0, 3, 200])
def test_a_length_that_cannot_be_is_an_error(length: int) -> None:
    with pytest.raises(NetlinkError, match="attributes"):
        parse_attributes(struct.pack("=HH", length, 1))
    with pytest.raises(NetlinkError, match="messages"):
        list(parse_messages(struct.pack("=IHHII", length, 1, 0, 0, 0)))


def test_the_small_encoders() -> None:
    assert u8(1, 7) == b"\x05\x00\x01\x00\x07\x00\x00\x00"
    assert u16_net(1, 0x1234) == b"\x06\x00\x01\x00\x12\x34\x00\x00"
    assert u32_net(1, 0x1234) == b"\x08\x00\x01\x00\x00\x00\x12\x34"
    assert u32_host(1, 1) == b"\x08\x00\x01\x00" + struct.pack("=I", 1)
    assert u64_net(1, 1) == b"\x0c\x00\x01\x00" + b"\0" * 7 + b"\x01"
    assert text(3, "og0") == b"\x08\x00\x03\x00og0\0"
    assert parse_attributes(nest(2, u8(1, 7), u8(2, 8))) == {2: u8(1, 7) + u8(2, 8)}


def test_an_attribute_longer_than_its_length_field_is_refused() -> None:
    with pytest.raises(NetlinkError) as caught:
        attribute(1, bytes(0xFFFF))
    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (-errno.ENOENT, errno.ENOENT), (17, 0)])
def test_the_errno_of_an_answer(value: int, expected: int) -> None:
    assert parse_errno(Message(2, 0, 1, struct.pack("=i", value))) == expected


def test_the_errno_of_an_answer_that_is_cut_short_is_none() -> None:
    assert parse_errno(Message(3, 0, 1, b"")) == 0
    assert HEADER_BYTES == 16
