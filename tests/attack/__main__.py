"""Run the corpus on one system or several and print a scoreboard: ``python -m attack``, or ``make attack``."""

import json
import os
from inspect import cleandoc
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from attack import scoreboard
from attack.case import Case
from attack.corpus import whole
from attack.runner import Attempt, Result, tried
from attack.scene import Who
from attack.scoreboard import SystemRun
from attack.system import SYSTEMS, System
from outgate import clock

SUBJECT = "outgate"
OUTPUT = Path("build/attack/scoreboard.json")
_WIDTH = 120
_MARKS = {
    Result.GOT_THROUGH: ("✘ got through   ", "bold red"),
    Result.CONTROL_FAILED: ("? control failed", "yellow"),
    Result.BROKEN: ("! broken        ", "magenta"),
}


def main(
    systems: Annotated[str, typer.Option(envvar="ATTACK_SYSTEMS", help=f"Which of: {' '.join(SYSTEMS)}.")] = SUBJECT,
    only: Annotated[str, typer.Option(envvar="ATTACK_ONLY", help="Only cases whose name contains this.")] = "",
    users: Annotated[str, typer.Option(envvar="ATTACK_USERS", help=f"Which of: {' '.join(Who)}.")] = " ".join(Who),
    page: Annotated[
        Path | None, typer.Option(envvar="ATTACK_PAGE", help="A Markdown page whose marked part is written anew.")
    ] = None,
) -> None:
    """Try every case on every system, as each of the users. Exit code 1 if Outgate did not hold."""
    if unknown := set(systems.split()) - set(SYSTEMS):
        raise typer.BadParameter(f"There is no system {', '.join(sorted(unknown))}; there are {' '.join(SYSTEMS)}.")
    if unknown := set(users.split()) - set(Who):
        raise typer.BadParameter(f"There is no user {', '.join(sorted(unknown))}; there are {' '.join(Who)}.")
    if os.geteuid() != 0:
        raise typer.BadParameter("The systems are made of network namespaces: run this as root.")
    cases = [case for case in whole() if only in case.name]
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    attempted = [(case, who) for case in cases for who in Who if who in users.split()]
    runs = [_run(SYSTEMS[name], attempted, console) for name in systems.split()]
    for run in runs:
        console.print()
        console.print(scoreboard.table(run))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(scoreboard.as_json(runs), indent=1), "utf-8")
    if page is not None:
        page.write_text(scoreboard.put_into(page.read_text("utf-8"), scoreboard.render_markdown(runs)), "utf-8")
    if not scoreboard.holds(runs, subject=SUBJECT):
        raise typer.Exit(1)


def _run(system: System, attempted: list[tuple[Case, Who]], console: Console) -> SystemRun:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began_s = clock.monotonic_s()
    attempts = []
    with Progress(*columns, console=console) as progress, system.opened() as opened:
        task = progress.add_task(system.NAME, total=len(attempted))
        for case, who in attempted:
            progress.update(task, description=f"{system.NAME}: {case.sentence}"[:90])
            attempts.append(tried(case, opened, who, system.ABILITIES))
            _tell(attempts[-1], progress.console)
            progress.advance(task)
        progress.update(task, description=system.NAME)
    took_s = clock.monotonic_s() - began_s
    return SystemRun(system.NAME, system.version(), cleandoc(system.__doc__ or ""), took_s, tuple(attempts))


def _tell(attempt: Attempt, console: Console) -> None:
    """What did not come to "stopped", as it happens."""
    if attempt.result not in _MARKS:
        return
    mark, style = _MARKS[attempt.result]
    console.print(Text(f"{mark} {attempt.case.sentence} ({attempt.who})", style))
    for line in scoreboard.told(attempt):
        console.print(Text(f"    {line}", "dim"), soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
