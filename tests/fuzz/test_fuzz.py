"""A short run of every target: all that is kept, and some thousands of inputs near it."""

import os
import re
from pathlib import Path

import pytest

from fuzz.corpus import CORPUS, read_corpus, read_finds
from fuzz.mutate import mutations
from fuzz.registry import TARGETS
from fuzz.target import Target

_PAGE = Path(__file__).parents[2] / "docs" / "fuzzing.md"
_ROW = re.compile(r"^\| (.+) \| `([a-z_]+)` \| (.+) \|$", re.MULTILINE)


def _try(target: Target, data: bytes, what: str) -> None:
    if target.needs_root and os.geteuid() != 0:
        pytest.skip("it makes files of other users")
    try:
        target.run(data)
    except Exception as error:
        error.add_note(f"{target.name}, {what}: {data!r}")
        raise


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_is_kept_holds(target: Target) -> None:
    """Every input that was ever of use, finds among them."""
    corpus = read_corpus(target.name)
    assert corpus
    for name, data in corpus.items():
        assert len(data) <= target.bytes_max
        _try(target, data, name)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_lies_near_holds(target: Target) -> None:
    """The same mutations in each run, so that a failure is one everywhere."""
    corpus = list(read_corpus(target.name).values())
    for number, data in enumerate(mutations(corpus, target.name, target.examples, target.bytes_max)):
        _try(target, data, f"mutation {number}")


def test_every_find_is_kept_with_a_sentence() -> None:
    kept = {(target.name, name) for target in TARGETS for name in read_corpus(target.name)}
    finds = read_finds()
    assert finds.keys() <= kept
    assert {(target, name) for target, name in kept if name.startswith("find-")} == finds.keys()
    assert all(sentence.endswith(".") for sentence in finds.values())


def test_the_page_lists_every_target() -> None:
    rows = _ROW.findall(_PAGE.read_text(encoding="utf-8"))
    assert rows == [(target.parser, target.name, target.invariant) for target in TARGETS]
    assert {directory.name for directory in CORPUS.iterdir()} == {target.name for target in TARGETS}
