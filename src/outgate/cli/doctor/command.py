"""``outgate doctor``: which checks there are to make from here, and how it ends."""

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text

from outgate.cli.connection import ApiKey, Json, NoKeyError, StateDir, Url, connect, read_key
from outgate.cli.doctor.findings import Finding, Grade, print_findings
from outgate.cli.doctor.host import HOST, check_host
from outgate.cli.doctor.installation import (
    INSTALLATION,
    check_service_settings,
    check_settings,
    check_state,
    is_installed,
    is_root,
)
from outgate.cli.doctor.network import NETWORK, check_network
from outgate.cli.doctor.running import RUNNING, check_server
from outgate.cli.doctor.self_test import PROBE, probe_server
from outgate.cli.output import console, print_json
from outgate.server.context import reachable
from outgate.settings import Settings, load_settings

_AS_ROOT = "sudo outgate doctor"
PROBE_HOST = "example.com"


def doctor(
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also start a devbox, try what passes and what does not, and remove it.")
    ] = False,
    probe_host: Annotated[
        str, typer.Option("--probe-host", metavar="NAME", help="What passes: a name that serves HTTPS.")
    ] = PROBE_HOST,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    state_dir: StateDir = None,
) -> None:
    """Whether this host can enforce policies and the server that runs is well. Ends with 1 when something fails."""
    settings = load_settings(state_dir=state_dir)
    findings = [*_check_here(settings, url), *_check_server(settings, url, api_key)]
    if probe:
        findings += _probe(url, api_key, state_dir, probe_host)
    can_serve = None if any(f.group == HOST.name and f.grade is Grade.SKIP for f in findings) else True
    if any(f.group == HOST.name and f.grade is Grade.FAIL for f in findings):
        can_serve = False
    counts = {grade.value: sum(f.grade is grade for f in findings) for grade in Grade}
    if json:
        print_json({"can_serve": can_serve, "counts": counts, "checks": [asdict(f) for f in findings]})
    else:
        print_findings(findings)
        _print_verdict(can_serve, counts)
    if counts[Grade.FAIL]:
        raise typer.Exit(1)


def _print_verdict(can_serve: bool | None, counts: dict[str, int]) -> None:
    if can_serve is not None:
        verdict = (
            "This machine can enforce policies." if can_serve else "`outgate serve` will not start on this machine."
        )
        console.print(Text(verdict, style="bold"))
    console.print(Text(", ".join(f"{count} {grade}" for grade, count in counts.items()), style="dim"))


def is_elsewhere(url: str | None) -> bool:
    """Whether the server that is asked is on another machine, as far as its URL tells."""
    host = "" if url is None else urlsplit(url).hostname or ""
    if url is None or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _check_here(settings: Settings, url: str | None) -> Iterator[Finding]:
    groups = (HOST, INSTALLATION, NETWORK)
    if is_elsewhere(url):
        for group in groups:
            yield group.skipped("all checks", "the server is on another machine", "run outgate doctor there, as root")
        return
    if not is_root():
        for group in groups:
            yield group.skipped("all checks", "they need root", _AS_ROOT)
        return
    yield from check_host(settings.runtime.value)
    yield from check_settings(settings)
    yield from check_service_settings(os.environ)
    if not is_installed(settings):
        why = f"no server was started on {settings.state_dir} yet"
        yield INSTALLATION.skipped("state and store", why, "outgate serve makes them, or give --state-dir")
        yield NETWORK.skipped("all checks", why)
        return
    yield from check_state(settings)
    yield from check_network(settings)


def _check_server(settings: Settings, url: str | None, api_key: str | None) -> Iterator[Finding]:
    if url is None and is_root() and not is_installed(settings):
        yield RUNNING.skipped(
            "all checks", f"no server was started on {settings.state_dir} yet", "give --url of another one"
        )
        return
    yield from check_server(url or f"http://{reachable(settings.listen)}", api_key or _find_key(settings))


def _find_key(settings: Settings) -> str | None:
    try:
        return read_key(settings)
    except NoKeyError:
        return None


def _probe(url: str | None, api_key: str | None, state_dir: Path | None, host: str) -> Iterator[Finding]:
    try:
        client = connect(url, api_key, state_dir)
    except NoKeyError as error:
        yield PROBE.failed("devbox", error.message, "give --api-key")
        return
    with client:
        yield from probe_server(client, host)
