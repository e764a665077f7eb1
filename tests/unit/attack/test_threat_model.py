"""The threat model names cases and tests that exist, in every row."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from attack.corpus import whole
from outgate.model.verdict import DenyReason, EnforcementPoint

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/threat-model.md"
HEAD = "| attack | stopped by | what is left | seen | shown by |"
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_LOGGED = re.compile(r"\b(?:warning|info)\(\s*\"([^\"]+)\"")
_NAME = re.compile(r"`(\w+)`")


def _rows() -> Iterator[list[str]]:
    """The cells of each row of the tables of attacks."""
    for table in PAGE.read_text("utf-8").split(HEAD)[1:]:
        for line in table.lstrip("\n").splitlines()[1:]:
            if not line.startswith("|"):
                break
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _known() -> set[str]:
    tests = (ROOT / "tests").rglob("test_*.py")
    return {case.name for case in whole()} | {name for file in tests for name in _TEST.findall(file.read_text("utf-8"))}


def test_each_attack_is_shown_by_cases_or_tests_that_exist() -> None:
    rows, known = list(_rows()), _known()
    assert len(rows) >= 30
    named = {row[0]: set(_NAME.findall(row[-1])) for row in rows}
    assert {attack: names - known for attack, names in named.items() if not names or names - known} == {}


@pytest.mark.parametrize("row", list(_rows()), ids=lambda row: row[0])
def test_each_row_says_what_stops_it_what_is_left_and_where_it_is_seen(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    assert set(re.findall(r"`([^`]+)`", row[3])) <= _signs()


@cache
def _signs() -> set[str]:
    """Reasons of denials, codes of warnings, words of the flow log, and the first words of what is logged."""
    sources = (ROOT / "src/outgate").rglob("*.py")
    logged = {text for file in sources for text in _LOGGED.findall(file.read_text("utf-8"))}
    warnings = re.findall(r"^## `(\w+)`$", (ROOT / "docs/warnings.md").read_text("utf-8"), re.MULTILINE)
    return {"allow", *map(str, DenyReason), *map(str, EnforcementPoint), *warnings, *logged}
