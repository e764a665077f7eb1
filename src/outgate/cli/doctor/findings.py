"""What a check found: a grade, what was seen, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rich.text import Text

from outgate.cli.output import clean, console


class Grade(StrEnum):
    """How a check went. Only ``fail`` makes doctor end with 1."""

    PASS = "pass"  # noqa: S105 - a grade, no password
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


_STYLES: Final = {Grade.PASS: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red", Grade.SKIP: "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``remedy`` is there unless it passed; a skipped check says in ``seen`` why it was skipped."""

    group: str
    name: str
    grade: Grade
    seen: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that belong together; makes their findings."""

    name: str

    def passed(self, name: str, seen: str = "") -> Finding:
        """All is well."""
        return Finding(self.name, name, Grade.PASS, seen)

    def warned(self, name: str, seen: str, remedy: str) -> Finding:
        """Policies hold; something else does not, or soon will not."""
        return Finding(self.name, name, Grade.WARN, seen, remedy)

    def failed(self, name: str, seen: str, remedy: str) -> Finding:
        """It does not work as it is."""
        return Finding(self.name, name, Grade.FAIL, seen, remedy)

    def skipped(self, name: str, why: str, remedy: str = "") -> Finding:
        """Not looked at."""
        return Finding(self.name, name, Grade.SKIP, why, remedy)


def print_findings(findings: Iterable[Finding]) -> None:
    """A line each, below the name of its group."""
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            console.print(Text(group, style="bold"))
        line = Text(f"  {finding.grade.value.ljust(5)}", style=_STYLES[finding.grade]) + Text(clean(finding.name))
        if finding.seen:
            line.append(f": {clean(finding.seen)}", style="dim" if finding.grade is Grade.PASS else "")
        if finding.remedy:
            line.append(f" → {clean(finding.remedy)}")
        console.print(line, soft_wrap=True)
