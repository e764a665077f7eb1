"""The fail-closed matrix in docs/failures.md is whole, and shows what exists."""

import ast
import itertools
import re
from pathlib import Path

from outgate.agent.health import WarningCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text("utf-8")
WHAT = (
    "api",
    "agent",
    "gate",
    "store",
    "upstream DNS",
    "kernel refuses a batch",
    "table flushed or edited",
    "conntrack table full",
    "disk full",
    "clock jumps",
    "memory short",
    "descriptors exhausted",
)
HOW = ("gone", "slow", "wrong", "restarted")
GATES_OWN = {"pins_not_read", "gate_error", "upstream_silent"}


def cells() -> dict[tuple[str, str], tuple[str, str, str, str]]:
    """(what, how) → verdict, warning, recovery, and the test or the reason why there is none."""
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"][2:]
    made = {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}
    assert len(made) == len(rows), "a cell is there twice"
    return made


def existing_tests() -> set[str]:
    """The name of every test function and method of the project."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_cell_is_filled() -> None:
    assert set(cells()) == set(itertools.product(WHAT, HOW))


def test_every_cell_says_verdict_warning_and_recovery_or_why_it_is_not_made() -> None:
    for cell, (verdict, warning, recovery, shown) in cells().items():
        if shown.startswith("not made:"):
            assert len(shown) > len("not made: why"), cell
        else:
            assert verdict, cell
            assert warning, cell
            assert recovery, cell


def test_every_test_that_is_named_exists() -> None:
    known = existing_tests()
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert named
    assert set(named) <= known, set(named) - known
    for cell, (_, _, _, shown) in cells().items():
        assert shown.startswith("not made:") or re.fullmatch(r"`test_\w+`", shown), cell


def test_every_warning_that_is_named_is_one() -> None:
    codes = {str(code) for code in WarningCode} | GATES_OWN
    for cell, (_, warning, _, _) in cells().items():
        named = set(re.findall(r"`([a-z_]+)`", warning))
        assert named <= codes, (cell, named - codes)
