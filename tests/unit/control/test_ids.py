import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.control.ids import IdMaker, IdPrefix, derive_id, id_pattern, is_id


@given(st.lists(st.integers(min_value=0, max_value=2**47), min_size=2, max_size=30))
def test_ids_grow_whatever_the_clock_does(times_ms: list[int]) -> None:
    maker = IdMaker()
    ids = [maker.make(IdPrefix.POLICY, now_ms) for now_ms in times_ms]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("prefix", IdPrefix)
def test_ids_have_their_shape(prefix: IdPrefix) -> None:
    for text in (
        IdMaker().make(prefix, 1_795_000_000_000),
        derive_id(prefix, b"\xff" * 32),
        derive_id(prefix, b"\0" * 32),
    ):
        assert is_id(prefix, text)
        assert re.search(id_pattern(prefix), text)
        assert len(text) == len(prefix) + 21


@pytest.mark.parametrize(
    "text",
    [
        "",
        "npol_",
        "npol_" + "a" * 20,
        "npol_" + "a" * 22,
        "npol_" + "ä" * 21,
        "dbx_" + "a" * 21,
        "npol_" + "a" * 20 + "\n",
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_id(IdPrefix.POLICY, text)


def test_derived_ids_are_the_same_for_the_same_digest() -> None:
    assert derive_id(IdPrefix.EXECUTION, b"a" * 32) == derive_id(IdPrefix.EXECUTION, b"a" * 32)
    assert derive_id(IdPrefix.EXECUTION, b"a" * 32) != derive_id(IdPrefix.EXECUTION, b"b" * 32)
