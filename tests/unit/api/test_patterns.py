"""The patterns of the OpenAPI document say what the parsers say."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from outgate.api.patterns import CIDR_PATTERN, HOSTNAME_PATTERN
from outgate.errors import InvalidValueError
from outgate.model.addresses import parse_cidr
from outgate.model.names import parse_host_pattern

# JSON Schema's "$" is the very end; Python's also comes before a last newline.
HOSTNAME = re.compile(HOSTNAME_PATTERN.replace("$", r"\Z"), re.ASCII)
CIDR = re.compile(CIDR_PATTERN.replace("$", r"\Z"), re.ASCII)

pieces = st.sampled_from(
    ["a", "B", "0", "9", "-", "_", ".", "*", "*.", "x1", "0x", "f", "a" * 62, "a" * 63, "é", " ", "\n", "/", ":", "com"]
)
cidr_pieces = st.sampled_from(
    ["0", "1", "10", "127", "128", "192", "255", "256", "01", ".", "/", "8", "24", "32", "33"]
)


def is_hostname(text: str) -> bool:
    try:
        parse_host_pattern(text)
    except InvalidValueError:
        return False
    return True


def is_cidr(text: str) -> bool:
    try:
        parse_cidr(text)
    except InvalidValueError:
        return False
    return True


@settings(max_examples=2000)
@given(st.lists(pieces, max_size=9).map("".join))
@example("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61)
@example("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 62)
@example("*." + "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61 + ".")
@example("1.2.3.4.")
@example("0x.0X1F")
def test_host_names(text: str) -> None:
    assert (HOSTNAME.search(text) is not None) == is_hostname(text)


@settings(max_examples=1000)
@given(
    st.lists(cidr_pieces, max_size=9).map("".join)
    | st.builds(
        lambda address, prefix: f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}/{prefix}",
        st.integers(0, 2**32 - 1).map(lambda value: value & ~((1 << (value % 33)) - 1)),
        st.integers(0, 33),
    )
)
def test_networks(text: str) -> None:
    assert (CIDR.search(text) is not None) == is_cidr(text)
