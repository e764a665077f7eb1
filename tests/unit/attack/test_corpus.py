"""The corpus itself: large enough, told well, and each attack beside a twin that is none."""

import inspect
from collections import Counter

import pytest

from attack.case import Case, Group, case
from attack.corpus import whole
from attack.scene import Scene
from attack.system import SYSTEMS

CASES_MIN = 120
CASES_PER_GROUP_MIN = 20
CHARACTERS_MIN = 72
"""Fewer do not say what the class of bug is and where it was met."""


def test_there_are_enough_cases_in_every_group() -> None:
    counts = Counter(case.group for case in whole())
    assert counts.total() >= CASES_MIN
    assert {group.value: counts[group] for group in Group if counts[group] < CASES_PER_GROUP_MIN} == {}


@pytest.mark.parametrize("case", whole(), ids=lambda case: case.name)
def test_each_case_is_a_sentence_with_a_story_and_a_twin(case: Case) -> None:
    assert len(case.sentence.split()) >= 4
    assert len(case.story) >= CHARACTERS_MIN, case.story
    assert case.control.__name__ != case.attack.__name__
    assert inspect.getdoc(case.control) or len(case.control.__name__.split("_")) >= 3
    assert case.closed_in_the_open is None or len(case.closed_in_the_open.split()) >= 5


def test_no_two_cases_say_the_same() -> None:
    sentences = Counter(case.sentence.casefold() for case in whole())
    stories = Counter(case.story for case in whole())
    assert [text for text, times in (sentences + stories).items() if times > 1] == []


def test_a_case_without_a_story_or_with_a_name_that_is_taken_is_refused() -> None:
    taken = whole()[0]

    def untold(scene: Scene) -> list[str]:
        return []

    with pytest.raises(ValueError, match="untold needs a docstring"):
        case(Group.DNS, control=taken.control)(untold)
    with pytest.raises(ValueError, match=f"{taken.name} needs a docstring and a name of its own"):
        case(Group.DNS, control=taken.control)(taken.attack)


def test_every_system_says_how_it_was_set_up() -> None:
    assert all((system.__doc__ or "").strip() for system in SYSTEMS.values())
