"""What the server says of itself, wherever it is: by its public API."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from outgate import clock
from outgate.cli.doctor.findings import Finding, Group
from outgate.client.public import OutgateClient
from outgate.client.transport import PeerRefusedError, PeerUnreachableError

RUNNING: Final = Group("server")
_ANSWER_WAIT_S: Final = 30.0
SKEW_MS_MAX: Final = 5_000
REPORT_AGE_MS_MAX: Final = 60_000
"""A host is heard of at least every 25 s, which is stored every few seconds."""
_GATE_DOWN: Final = "gate_down"
_START: Final = "start it (systemctl start outgate, or outgate serve), or see its log (journalctl -u outgate)"


def check_server(url: str, api_key: str | None) -> Iterator[Finding]:
    """Whether it answers, enforces, and warns of something; and whether the key is one."""
    asked_ms = clock.wall_ms()
    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=_ANSWER_WAIT_S, trust_env=False)
        health: Mapping[str, Any] = answer.raise_for_status().json()
        status = str(health["status"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        yield RUNNING.failed(
            "api", f"{url} does not answer as an Outgate server ({type(error).__name__}: {error}).", _START
        )
        return
    yield RUNNING.passed("api", f"answers at {url}")
    if "time_ms" in health:
        yield grade_skew(int(health["time_ms"]), asked_ms, clock.wall_ms())
    yield from grade_health(status, health)
    yield check_key(url, api_key)


def grade_skew(told_ms: int, asked_ms: int, answered_ms: int) -> Finding:
    """Whether the server's clock and this one agree: it may have looked at any time between question and answer."""
    skew_ms = told_ms - min(max(told_ms, asked_ms), answered_ms)
    if abs(skew_ms) <= SKEW_MS_MAX:
        return RUNNING.passed("clock", "agrees with this machine's")
    return RUNNING.warned(
        "clock",
        f"The server's is {abs(skew_ms) / 1000:.0f} s {'ahead of' if skew_ms > 0 else 'behind'} this machine's.",
        "synchronise both (systemd-timesyncd, chrony): records would be dated wrongly",
    )


def grade_health(status: str, health: Mapping[str, Any]) -> Iterator[Finding]:
    """What ``/healthz`` says: enforcement, hosts, warnings."""
    if status == "enforcing":
        yield RUNNING.passed("enforcement", "policies are enforced")
    else:
        yield RUNNING.failed("enforcement", str(health.get("message") or "Nothing is enforced."), _START)
    warnings = health.get("warnings", ())
    for host in health.get("hosts", ()):
        yield from grade_host(host, {str(w["code"]) for w in warnings if w["host"] == host["name"]})
    for warning in warnings:
        remedy = f"docs/warnings.md says what to do about `{warning['code']}`"
        yield RUNNING.warned(f"warning of host {warning['host']}", str(warning["text"]), remedy)


def grade_host(host: Mapping[str, Any], warned: set[str]) -> Iterator[Finding]:
    """One host: its agent's word, its revision, its gate."""
    name, age_ms = f"host {host['name']}", host["report_age_ms"]
    if age_ms is None or age_ms > REPORT_AGE_MS_MAX or not host["enforcing"]:
        seen = "never" if age_ms is None else f"{age_ms / 1000:.0f} s ago"
        remedy = "start its agent (systemctl start outgate-agent, or outgate), or see its log"
        yield RUNNING.failed(f"{name}: agent", f"It was last heard of {seen}, and does not enforce.", remedy)
        return
    yield RUNNING.passed(f"{name}: agent", f"heard of {age_ms / 1000:.0f} s ago")
    wanted, enforced = host["revision_wanted"], host["revision_enforced"]
    if enforced < wanted:
        seen = f"It enforces revision {enforced}; {wanted} is wanted."
        yield RUNNING.warned(
            f"{name}: revision", seen, "look again in a moment; if it stays, see the warnings and its log"
        )
    else:
        yield RUNNING.passed(f"{name}: revision", f"{enforced} is wanted and enforced")
    if _GATE_DOWN not in warned:
        yield RUNNING.passed(f"{name}: gate", "is up")
    else:
        yield RUNNING.failed(
            f"{name}: gate", "It is down: names are closed.", "it is being started; if it stays, see the log"
        )


def check_key(url: str, api_key: str | None) -> Finding:
    """Whether the API key is one."""
    if api_key is None:
        return RUNNING.skipped("api key", "none is known", "give --api-key, or --state-dir of the server as root")
    try:
        with OutgateClient(url, api_key) as client:
            account = client.get_account()
    except (PeerUnreachableError, PeerRefusedError) as error:
        return RUNNING.failed("api key", error.message, "make another: outgate key create")
    return RUNNING.passed("api key", f"of account {account['id']}")
