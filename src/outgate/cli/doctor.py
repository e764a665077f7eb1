"""``outgate doctor``: can this machine enforce policies, what is missing, and how to get it."""

import shutil
from dataclasses import asdict

import typer
from rich.text import Text

from outgate.cli.connection import Json
from outgate.cli.output import clean, console, print_json
from outgate.dataplane.probe import Check, probe_host
from outgate.settings import load_settings

_PROGRAMS = {"nft": "nftables", "ip": "iproute2", "nsenter": "util-linux"}


def doctor(*, json: Json = False) -> None:
    """Try out what enforcement needs of this machine. Ends with 1 when `serve` would refuse to start."""
    checks = (*probe_host(), *_probe_programs())
    can_serve = all(check.ok or not check.needed for check in checks)
    if json:
        print_json({"can_serve": can_serve, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            _print(check)
        verdict = (
            "This machine can enforce policies." if can_serve else "`outgate serve` will not start on this machine."
        )
        console.print(Text(verdict, style="bold"))
    if not can_serve:
        raise typer.Exit(1)


def _probe_programs() -> tuple[Check, ...]:
    runtime = load_settings().runtime.value
    checks = [
        Check(
            name=f"OCI runtime {runtime}",
            ok=shutil.which(runtime) is not None,
            needed=True,
            why="It makes the sandboxes.",
            how=f"apt-get install {runtime}, or another one by OUTGATE_RUNTIME",
        )
    ]
    checks += [
        Check(
            name=f"program {program}",
            ok=shutil.which(program) is not None,
            needed=False,
            why="The demo and people looking for a fault use it.",
            how=f"apt-get install {package}",
        )
        for program, package in _PROGRAMS.items()
    ]
    return tuple(checks)


def _print(check: Check) -> None:
    if check.ok:
        mark, style = "ok  ", "green"
    elif check.needed:
        mark, style = "MISSING  ", "bold red"
    else:
        mark, style = "without  ", "yellow"
    line = Text(mark.ljust(9), style=style) + Text(clean(check.name), style="bold")
    if not check.ok:
        line += Text(clean(f": {check.why} Get it by {check.how}."))
        if check.detail:
            line += Text(clean(f" ({check.detail})"), style="dim")
    console.print(line, soft_wrap=True)
