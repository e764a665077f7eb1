import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.netlink import NetlinkError, parse_attributes
from outgate.dataplane.nfnetlink import (
    COMMENT_BYTES_MAX,
    Element,
    IfPresent,
    JumpTo,
    add_elements,
    decode_comment,
    delete_elements,
    encode_comment,
    flush_elements,
    key_address,
    key_link,
    key_port,
    key_protocol,
    mark,
    parse_elements,
)
from outgate.dataplane.pin_elements import MORE_NAMES, PINS4, PINS6, Pin, add_pins, decode_pin, delete_pins, encode_pin

ELEMENTS = st.builds(
    Element,
    key=st.binary(min_size=1, max_size=32),
    key_end=st.none() | st.binary(min_size=1, max_size=32),
    data=st.none() | st.binary(min_size=4, max_size=4) | st.just(JumpTo("policy_16")),
    timeout_ms=st.none() | st.integers(1, 1 << 40),
    remaining_ms=st.none() | st.integers(1, 1 << 40),
    userdata=st.binary(max_size=256),
)


@given(st.lists(ELEMENTS, max_size=20))
def test_elements_come_back_as_they_went(elements: list[Element]) -> None:
    messages = add_elements("outgate", "live", elements)
    assert [each for item in messages for each in parse_elements(bytes(4) + item.body)] == elements


@given(st.binary(max_size=120))
def test_any_bytes_give_elements_or_a_netlink_error(data: bytes) -> None:
    try:
        parse_elements(data)
    except NetlinkError as error:
        assert error.message  # noqa: PT017 - the point is that no other exception comes


def test_long_lists_are_cut_into_messages_the_kernel_takes() -> None:
    elements = [Element(key_link("og0") + struct.pack(">I", number), userdata=bytes(200)) for number in range(1000)]
    messages = add_elements("outgate", "pins4", elements)
    assert len(messages) > 1
    assert all(len(item.body) < 0xFFFF for item in messages)
    assert [each for item in messages for each in parse_elements(bytes(4) + item.body)] == elements


def test_nothing_to_do_gives_no_message() -> None:
    assert add_elements("outgate", "live", []) == []
    assert delete_elements("outgate", "live", []) == []


def test_deleting_sends_keys_alone() -> None:
    (item,) = delete_elements("outgate", "m", [Element(b"abcd", b"abce", mark(7), 1000, userdata=b"x")])
    assert parse_elements(bytes(4) + item.body) == [Element(b"abcd", b"abce")]
    (flush,) = flush_elements("outgate", "m")
    assert set(parse_attributes(flush.body)) == {1, 2}


def test_refusing_what_is_there_is_a_flag() -> None:
    (refresh,) = add_elements("outgate", "m", [Element(b"abcd")])
    (refuse,) = add_elements("outgate", "m", [Element(b"abcd")], IfPresent.REFUSE)
    assert refuse.flags & ~refresh.flags == 0x200


def test_key_parts_have_the_kernels_layout() -> None:
    assert key_link("og0") == b"og0" + bytes(13)
    assert key_address("1.2.3.4") == b"\x01\x02\x03\x04"
    assert len(key_address("2a0f::1")) == 16
    assert key_protocol(6) == b"\x06\0\0\0"
    assert key_port(443) == b"\x01\xbb\0\0"
    assert mark(5) == struct.pack("=I", 5)


def test_comments_are_libnftnls() -> None:
    assert encode_comment("ab") == b"\x00\x03ab\0"
    assert decode_comment(b"\x05\x01x" + encode_comment("ab")) == "ab"
    assert decode_comment(b"") == ""
    assert decode_comment(encode_comment("x" * COMMENT_BYTES_MAX)) == "x" * COMMENT_BYTES_MAX
    with pytest.raises(ValueError, match="does not fit"):
        encode_comment("x" * (COMMENT_BYTES_MAX + 1))


NAMES = st.from_regex(r"[a-z0-9]{1,60}\.example\.com", fullmatch=True)


@given(st.lists(NAMES, max_size=8, unique=True), st.booleans())
def test_pins_keep_the_names_that_fit_and_say_when_some_are_missing(names: list[str], has_more: bool) -> None:
    pin = Pin("og7", ip_address("45.45.46.1"), 60_000, tuple(names), has_more_names=has_more)
    back = decode_pin(encode_pin(pin))
    assert (back.link, back.address, back.remaining_ms) == (pin.link, pin.address, pin.remaining_ms)
    assert back.names == pin.names[: len(back.names)]
    assert back.has_more_names == (has_more or len(back.names) < len(names))


def test_a_comment_that_could_end_a_quoted_string_gives_no_name() -> None:
    element = Element(key_link("og0") + bytes(4), userdata=encode_comment('a.example,b" ; flush ruleset,' + MORE_NAMES))
    assert decode_pin(element).names == ("a.example",)
    assert decode_pin(element).has_more_names


def test_pins_go_to_the_set_of_their_family() -> None:
    four, six = ip_address("45.45.46.1"), ip_address("2a0f::1")
    for messages in (
        add_pins([Pin("og0", four, 1000), Pin("og0", six, 1000)]),
        delete_pins([("og0", four), ("og0", six)]),
    ):
        names = [parse_attributes(item.body)[2].rstrip(b"\0").decode() for item in messages]
        assert names == [PINS4, PINS6]
