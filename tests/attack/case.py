"""What a case of the corpus is: a sentence, where the field met it, the attack and its legitimate twin."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from inspect import getdoc

from attack.scene import Ability, Scene

Attack = Callable[[Scene], Iterable[str]]
"""Carries the attack out; gives what got through, in words, nothing if it was stopped."""

Control = Callable[[Scene], bool]
"""Carries the legitimate twin out; says whether it arrived."""


class Group(StrEnum):
    """What a case tries to deceive."""

    NAMES = "name against address against handshake"
    DNS = "DNS"
    STRINGS = "strings and parsing"
    PATH = "below TCP and around the path"
    TIME = "time, change and failure"


@dataclass(frozen=True, slots=True)
class Case:
    """One attack. ``closed_in_the_open`` says why it cannot succeed even where nothing filters, if that is so."""

    group: Group
    name: str
    story: str
    attack: Attack
    control: Control
    needs: frozenset[Ability]
    closed_in_the_open: str | None

    @property
    def sentence(self) -> str:
        """Its name as a sentence."""
        return self.name.replace("_", " ")


CORPUS: dict[str, Case] = {}
"""Every case by its name, in the order of definition; filled when ``attack.corpus`` is imported."""


def case(
    group: Group,
    *,
    control: Control,
    needs: Iterable[Ability] = (),
    closed_in_the_open: str | None = None,
) -> Callable[[Attack], Attack]:
    """Register the decorated function as a case: its name is the sentence, its docstring names the class of bug.

    Raises ValueError for a name that is taken and for a missing docstring.
    """

    def register(attack: Attack) -> Attack:
        name, story = attack.__name__, getdoc(attack)
        if name in CORPUS or not story:
            raise ValueError(f"The case {name} needs a docstring and a name of its own.")
        CORPUS[name] = Case(group, name, story, attack, control, frozenset(needs), closed_in_the_open)
        return attack

    return register
