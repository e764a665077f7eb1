"""Degraded states of a host: each has a stable code, a sentence for its reader, and an end.

The codes are an enum so that docs/warnings.md can be compared with it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog

from outgate.model.desired import HostWarning

_TEXT_LENGTH_MAX: Final = 500
_FOREIGN_CODES_MAX: Final = 32
"""Codes that the gate raises itself; bounded, because the gate reads what devboxes send."""


class WarningCode(StrEnum):
    """What can be wrong with a host while it runs."""

    GATE_DOWN = "gate_down"
    KERNEL_FAILING = "kernel_failing"
    DRIFT_REPAIRED = "drift_repaired"
    DRIFT_UNKNOWN = "drift_unknown"
    POLICY_DENIED = "policy_denied"
    POLICY_CUT_OFF = "policy_cut_off"
    POLICY_REPORT_ONLY = "policy_report_only"
    API_UNREACHABLE = "api_unreachable"
    RUNTIME_FAILING = "runtime_failing"
    STATE_UNWRITABLE = "state_unwritable"
    RECORD_UNREADABLE = "record_unreadable"
    SLOTS_EXHAUSTED = "slots_exhausted"
    FLOW_TABLE_FILLING = "flow_table_filling"


class Health:
    """The warnings in force. ``on_change`` is called whenever they change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._texts: dict[str, str] = {}
        self._on_change = on_change
        self._log = structlog.get_logger("health")

    def raise_warning(self, code: WarningCode | str, text: str) -> None:
        """Put a warning in force, or change its text."""
        is_foreign = not isinstance(code, WarningCode)
        if is_foreign and code not in self._texts and len(self._texts) >= _FOREIGN_CODES_MAX:
            return
        text = text[:_TEXT_LENGTH_MAX]
        if self._texts.get(code) == text:
            return
        self._texts[str(code)] = text
        self._log.warning("warning_raised", code=str(code), text=text)
        self._on_change()

    def clear(self, code: WarningCode | str) -> None:
        """End a warning. Does nothing when it is not in force."""
        if self._texts.pop(str(code), None) is not None:
            self._log.info("warning_cleared", code=str(code))
            self._on_change()

    def warnings(self) -> tuple[HostWarning, ...]:
        """Every warning in force, by code."""
        return tuple(HostWarning(code, text) for code, text in sorted(self._texts.items()))
