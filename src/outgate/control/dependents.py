"""Deleting what others need: refused, and those others named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from outgate.errors import InvalidValueError

_NAMED_MAX: Final = 5
"""Ids in a refusal: enough to find them, few enough to read."""


@dataclass(frozen=True, slots=True)
class Dependents:
    """Things that need it, by id; what one and several of them are called, and what to do about them."""

    ids: Sequence[str]
    noun: str
    plural: str
    remedy: str


def refuse_while_used(what: str, dependents: Iterable[Dependents], *, code: str) -> None:
    """Raise InvalidValueError for the first of ``dependents`` that are any, as in ``what is in use by …``."""
    for group in dependents:
        if group.ids:
            named = ", ".join(group.ids[:_NAMED_MAX]) + (", …" if len(group.ids) > _NAMED_MAX else "")
            count = f"1 {group.noun}" if len(group.ids) == 1 else f"{len(group.ids)} {group.plural}"
            raise InvalidValueError(f"{what} is in use by {count} ({named}); {group.remedy} first.", code=code)
