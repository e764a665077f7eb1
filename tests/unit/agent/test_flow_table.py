"""The warning of a table that fills begins at one bound and ends at a lower one."""

import os
from pathlib import Path

from outgate.agent.flow_table import note_flow_table
from outgate.agent.health import Health, WarningCode
from outgate.dataplane.flow_table import FlowTableFill, observe_flow_table


def test_it_does_not_come_and_go_around_a_bound() -> None:
    changes: list[int] = []
    health = Health(lambda: changes.append(1))
    seen = []
    for count in (10, 79, 80, 79, 71, 95, 70, 69, 79, 81):
        note_flow_table(health, FlowTableFill(count, 100))
        seen.append(bool(health.warnings()))
    assert seen == [False, False, True, True, True, True, True, False, False, True]
    assert len(changes) == 3
    (warning,) = health.warnings()
    assert warning.code == WarningCode.FLOW_TABLE_FILLING
    assert "nf_conntrack_max" in warning.text


def test_a_namespace_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert observe_flow_table(f"nothing-{os.getpid()}") is None
