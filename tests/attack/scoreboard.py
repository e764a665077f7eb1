"""What a run of the corpus comes to: counted by case, as a table, as JSON and as Markdown."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from attack.case import Case, Group
from attack.runner import Attempt, Result
from outgate.cli.output import clean

BEGIN, END = "<!-- begin: written by make attack -->\n", "<!-- end: written by make attack -->\n"
TOLD_MAX = 3
TOLD_CHARACTERS_MAX = 200
_WORST_FIRST = (Result.BROKEN, Result.GOT_THROUGH, Result.CONTROL_FAILED, Result.STOPPED, Result.NOT_APPLICABLE)
_COLUMNS = (Result.STOPPED, Result.GOT_THROUGH, Result.CONTROL_FAILED, Result.NOT_APPLICABLE, Result.BROKEN)
_STYLES = {Result.GOT_THROUGH: "bold red", Result.CONTROL_FAILED: "yellow", Result.BROKEN: "magenta"}


@dataclass(frozen=True, slots=True)
class SystemRun:
    """The corpus on one system. ``how`` says how it was set up."""

    name: str
    version: str
    how: str
    took_s: float
    attempts: tuple[Attempt, ...]

    def by_case(self) -> dict[Case, Attempt]:
        """Each case's worst attempt: a case is stopped only where it is stopped as every user."""
        worst: dict[Case, Attempt] = {}
        for attempt in self.attempts:
            known = worst.setdefault(attempt.case, attempt)
            if _WORST_FIRST.index(attempt.result) < _WORST_FIRST.index(known.result):
                worst[attempt.case] = attempt
        return worst

    def of(self, result: Result) -> list[Attempt]:
        """The cases that came to ``result``."""
        return [attempt for attempt in self.by_case().values() if attempt.result is result]

    def counted(self, group: Group | None = None) -> Counter[Result]:
        """How many cases came to what, in ``group`` or altogether."""
        attempts = self.by_case().values()
        return Counter(attempt.result for attempt in attempts if group in (None, attempt.case.group))


def holds(runs: Iterable[SystemRun], *, subject: str) -> bool:
    """Whether ``subject`` stopped everything with its controls working, and no case was broken anywhere."""
    for run in runs:
        counts = run.counted()
        if counts[Result.BROKEN]:
            return False
        if run.name == subject and (counts[Result.GOT_THROUGH] or counts[Result.CONTROL_FAILED]):
            return False
    return True


def table(run: SystemRun) -> Table:
    """One system's counts by group, for a terminal."""
    made = Table(title=f"{run.version}: {run.took_s:.0f} s", title_justify="left", title_style="bold")
    made.add_column("group")
    for result in _COLUMNS:
        made.add_column(str(result), justify="right")
    for title, counts in _rows(run):
        cells = (
            Text(str(counts[result] or "·"), _STYLES.get(result, "") if counts[result] else "dim")
            for result in _COLUMNS
        )
        made.add_row(title, *cells)
    return made


def told(attempt: Attempt) -> list[str]:
    """The first things that an attempt tells, short and without control characters: they come from attackers."""
    return [clean(line)[:TOLD_CHARACTERS_MAX] for line in attempt.told[:TOLD_MAX]]


def as_json(runs: Sequence[SystemRun]) -> dict[str, object]:
    """Everything, attempt by attempt."""
    return {
        "systems": [
            {
                "name": run.name,
                "version": run.version,
                "how": run.how,
                "took_s": round(run.took_s, 1),
                "cases": {str(result): run.counted()[result] for result in _COLUMNS},
                "attempts": [
                    {
                        "case": attempt.case.name,
                        "group": str(attempt.case.group),
                        "who": str(attempt.who),
                        "result": str(attempt.result),
                        "told": told(attempt),
                    }
                    for attempt in run.attempts
                ],
            }
            for run in runs
        ]
    }


def render_markdown(runs: Sequence[SystemRun]) -> str:
    """The counts of each system, how it was set up, and every sentence that did not come to "stopped"."""
    return "\n".join(line for run in runs for line in _section(run))


def put_into(page: str, rendered: str) -> str:
    """``page`` with ``rendered`` between its two marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no part between {BEGIN.strip()} and {END.strip()}.")
    return before + BEGIN + rendered + END + after


def _section(run: SystemRun) -> Iterator[str]:
    yield f"### {run.version}\n"
    yield f"{run.how}\n"
    yield f"| group | {' | '.join(map(str, _COLUMNS))} |"
    yield f"|---|{'---:|' * len(_COLUMNS)}"
    for title, counts in _rows(run):
        yield f"| {title} | {' | '.join(str(counts[result]) for result in _COLUMNS)} |"
    yield ""
    for result in (Result.GOT_THROUGH, Result.CONTROL_FAILED, Result.NOT_APPLICABLE, Result.BROKEN):
        if found := run.of(result):
            yield f"{result.capitalize()}:\n"
            yield from (f"* {attempt.case.sentence}" for attempt in found)
            yield ""


def _rows(run: SystemRun) -> Iterator[tuple[str, Counter[Result]]]:
    for group in Group:
        yield group.value, run.counted(group)
    yield "all", run.counted()
