"""What is owed, what was measured, and how both are shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("svg")
from matplotlib import pyplot as plt


@dataclass(frozen=True, slots=True)
class Row:
    """One promise of the design's speed table and what this run saw of it.

    ``owed`` is a lower bound when ``at_least``, else an upper one, in ``unit``; None promises nothing, the row is
    for information. ``detail`` says what was compared with what, with the absolute figures of this run (which mean
    nothing on another machine).
    """

    name: str
    measured: float
    owed: float | None
    at_least: bool
    unit: str
    detail: str

    @property
    def holds(self) -> bool:
        if self.owed is None:
            return True
        return self.measured >= self.owed if self.at_least else self.measured <= self.owed

    @property
    def share_of_owed(self) -> float:
        """1.0 is just what is owed, as where nothing is; more is better, whichever way the bound points."""
        if self.owed is None:
            return 1.0
        if self.at_least:
            return self.measured / self.owed
        return self.owed / self.measured if self.measured > 0 else 10.0


def show(rows: Sequence[Row], console: Console) -> None:
    """A table, and one line for each promise that this run did not keep."""
    table = Table(title="outgate bench: ratios of one run")
    for column in ("what", "measured", "owed", "", "detail"):
        table.add_column(column, overflow="fold")
    for row in rows:
        bound = "nothing" if row.owed is None else f"{'≥' if row.at_least else '≤'} {row.owed:g} {row.unit}"
        verdict = "" if row.owed is None else "ok" if row.holds else "MISSES"
        table.add_row(row.name, f"{row.measured:.3g} {row.unit}", bound, verdict, row.detail)
    console.print(table)
    for row in rows:
        if not row.holds:
            console.print(f"misses what is owed: {row.name}: {row.measured:.3g} {row.unit}, owed {row.owed:g}")


def write(rows: Sequence[Row], folder: Path) -> None:
    """``bench.json`` and ``bench.svg`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    document = [asdict(row) | {"holds": row.holds} for row in rows]
    (folder / "bench.json").write_text(json.dumps(document, indent=2) + "\n")
    figure, axes = plt.subplots(figsize=(10, 0.45 * len(rows) + 1.2))
    shares = [min(row.share_of_owed, 4.0) for row in rows]
    axes.barh([row.name for row in rows], shares, color=["#2a7" if row.holds else "#c33" for row in rows])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("measured against owed (1 = as owed; to the right is better; cut at 4)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(folder / "bench.svg")
