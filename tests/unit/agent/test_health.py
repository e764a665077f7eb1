"""Warnings, and their list in the documentation."""

import re
from pathlib import Path

from outgate.agent.health import Health, WarningCode

DOCS = Path(__file__).parents[3] / "docs" / "warnings.md"


def test_a_warning_is_raised_once_changed_and_cleared() -> None:
    changes: list[int] = []
    health = Health(lambda: changes.append(1))
    health.raise_warning(WarningCode.GATE_DOWN, "why")
    health.raise_warning(WarningCode.GATE_DOWN, "why")
    assert len(changes) == 1
    health.raise_warning(WarningCode.GATE_DOWN, "another reason")
    health.raise_warning("upstream_down", "no resolver answers")
    assert [(warning.code, warning.text) for warning in health.warnings()] == [
        ("gate_down", "another reason"),
        ("upstream_down", "no resolver answers"),
    ]
    health.clear(WarningCode.GATE_DOWN)
    health.clear(WarningCode.GATE_DOWN)
    health.clear("upstream_down")
    assert health.warnings() == ()
    assert len(changes) == 5


def test_the_gate_cannot_fill_memory_with_warnings() -> None:
    health = Health(lambda: None)
    for number in range(1000):
        health.raise_warning(f"code_{number}", "x" * 10_000)
    health.raise_warning(WarningCode.GATE_DOWN, "our own always find room")
    assert len(health.warnings()) == 33
    assert max(len(warning.text) for warning in health.warnings()) <= 500


def test_every_warning_is_documented_and_no_other() -> None:
    documented = re.findall(r"^## `(\w+)`$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert set(WarningCode) <= set(documented)
    assert documented == sorted(documented)
