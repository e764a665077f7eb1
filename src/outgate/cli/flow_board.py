"""The live table of ``outgate flows --follow``: repeats as one line, the newest on top, totals and a rate above.

It knows no terminal and no clock: what is added says when, and it is drawn for the size that it is given.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outgate.cli.flow_lines import render_target
from outgate.cli.output import clean, render_time

RATE_OVER_S: Final = 10.0
_KINDS_MAX: Final = 1000
"""Kinds that are remembered; the one that was quiet for longest is forgotten."""
_LINES_ABOVE: Final = 3
"""Title, totals, and the names of the columns."""
_STYLES: Final[Mapping[str, str]] = {"allow": "green", "deny": "bold red", "report_only": "yellow"}
_WORDS: Final[Mapping[str, str]] = {"allow": "allowed", "deny": "denied", "report_only": "reported"}
_KEY: Final = ("devbox_id", "verdict", "enforcement_point", "hostname", "address", "port", "protocol", "rule", "reason")

# Column → the width of the terminal from which on it is shown, and its own; None takes what is left.
_COLUMNS: Final[Mapping[str, tuple[int, int | None]]] = {
    "time": (60, 8),
    "devbox": (120, 25),
    "verdict": (0, 11),
    "count": (40, 6),
    "at": (100, 6),
    "to": (0, 34),
    "out/in": (140, 17),
    "why": (70, None),
}
_TO_MIN: Final = 20


@dataclass(slots=True)
class _Kind:
    """Decisions that differ in nothing but time and amount."""

    flow: Mapping[str, Any]
    count: int
    bytes_out: int | None
    bytes_in: int | None


class FlowBoard:
    """What was decided so far. Added to by one thread and drawn by another."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._kinds: OrderedDict[tuple[object, ...], _Kind] = OrderedDict()
        self._totals: Counter[str] = Counter()
        self._recent: deque[tuple[float, int]] = deque()
        self._notice = ""

    def add(self, flow: Mapping[str, Any], now_s: float) -> None:
        """Count a record of the API that came at ``now_s``."""
        self.add_past(flow)
        with self._lock:
            self._recent.append((now_s, flow["count"]))
            self._forget_before(now_s - RATE_OVER_S)

    def add_past(self, flow: Mapping[str, Any]) -> None:
        """Count a record of before the beginning, which says nothing about the rate."""
        key = tuple(flow[name] for name in _KEY)
        with self._lock:
            self._totals[flow["verdict"]] += flow["count"]
            kind = self._kinds.get(key)
            if kind is None:
                self._kinds[key] = _Kind(flow, flow["count"], flow["bytes_out"], flow["bytes_in"])
                if len(self._kinds) > _KINDS_MAX:
                    self._kinds.popitem(last=False)
                return
            kind.flow = flow
            kind.count += flow["count"]
            kind.bytes_out = _sum(kind.bytes_out, flow["bytes_out"])
            kind.bytes_in = _sum(kind.bytes_in, flow["bytes_in"])
            self._kinds.move_to_end(key)

    def set_notice(self, text: str) -> None:
        """Show ``text`` in the title; an empty one shows nothing."""
        with self._lock:
            self._notice = text

    def rate_per_s(self, now_s: float) -> float:
        """Decisions a second, over the last :data:`RATE_OVER_S`."""
        with self._lock:
            self._forget_before(now_s - RATE_OVER_S)
            return sum(count for _, count in self._recent) / RATE_OVER_S

    def render(self, width: int, height: int, now_s: float) -> RenderableType:
        """The board for a terminal of that size, never higher than it."""
        rate = self.rate_per_s(now_s)
        with self._lock:
            kinds = [*reversed(self._kinds.values())][: max(0, height - _LINES_ABOVE - 1)]
            return Group(self._render_title(), self._render_totals(rate), _render_table(kinds, width))

    def _render_title(self) -> Text:
        line = Text(clean(self._title), style="bold", no_wrap=True, overflow="ellipsis")
        if self._notice:
            line.append(f"  {clean(self._notice)}", style="bold yellow")
        return line

    def _render_totals(self, rate_per_s: float) -> Text:
        line = Text(f"{sum(self._totals.values()):,} decisions", no_wrap=True, overflow="ellipsis")
        for verdict, word in _WORDS.items():
            if self._totals[verdict] or verdict != "report_only":
                line.append(" · ").append(f"{self._totals[verdict]:,} {word}", style=_STYLES[verdict])
        return line.append(f" · {rate_per_s:.1f}/s · Ctrl-C ends")

    def _forget_before(self, time_s: float) -> None:
        while self._recent and self._recent[0][0] < time_s:
            self._recent.popleft()


def _render_table(kinds: list[_Kind], width: int) -> Table:
    shown = [name for name, (from_width, _) in _COLUMNS.items() if width >= from_width]
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True, show_edge=False)
    for name in shown:
        own = _COLUMNS[name][1]
        # Where nothing else stretches, the place does.
        is_rest = own is None or (name == "to" and "why" not in shown)
        table.add_column(
            name.upper(),
            width=None if is_rest else own if name != "to" else min(own or 0, max(_TO_MIN, width // 3)),
            ratio=1 if is_rest else None,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name == "count" else "left",
        )
    for kind in kinds:
        table.add_row(*(_render_cell(name, kind) for name in shown))
    return table


def _render_cell(name: str, kind: _Kind) -> Text:
    flow, verdict = kind.flow, kind.flow["verdict"]
    is_allowed = verdict == "allow"
    why = (flow["rule"] if is_allowed else flow["sentence"]) or flow["sentence"] or flow["reason"]
    cells = {
        "time": (render_time(flow["time_ms"])[-8:], "dim"),
        "devbox": (flow["devbox_id"], ""),
        "verdict": (verdict, _STYLES.get(verdict, "")),
        "count": (f"x{kind.count}" if kind.count > 1 else "", "dim"),
        "at": (flow["enforcement_point"], ""),
        "to": (render_target(flow), ""),
        "out/in": ("" if kind.bytes_out is None else f"{kind.bytes_out}/{kind.bytes_in}", "dim"),
        "why": (why, "dim" if is_allowed else ""),
    }
    text, style = cells[name]
    return Text(clean(text), style=style)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
