"""``outgate flows``: what was decided on this host, oldest first."""

from typing import Annotated, Any

import msgspec
import typer

from outgate.agent.flowlog import FlowEntry
from outgate.cli.connection import Json, StateDir
from outgate.cli.local_agent import LocalAgent
from outgate.cli.output import console, print_json, print_table, render_time
from outgate.model.desired import FlowRecord
from outgate.settings import load_settings

_FOLLOW_WAIT_S = 25.0
_PAGE_MAX = 1000
COLUMNS = ("time", "devbox", "verdict", "at", "to", "out/in", "rule", "why")


def flows(
    *,
    devbox: Annotated[str | None, typer.Option("--devbox", help="Only this devbox's.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Only those judged by this policy (its id).")] = None,
    verdict: Annotated[str | None, typer.Option("--verdict", help="allow or deny.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_PAGE_MAX, help="The latest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """What devboxes of this host tried, what became of it, and the rule that decided. As root."""
    chosen = {"devbox_id": devbox, "policy_id": policy, "verdict": verdict}
    filters = {key: value for key, value in chosen.items() if value is not None}
    with LocalAgent(load_settings(state_dir=state_dir)) as agent:
        page = agent.read_flows(filters, after=-1, limit=limit, wait_s=0)
        _print(page.entries, json=json, follow=follow)
        while follow:
            page = agent.read_flows(filters, after=page.next_after, limit=_PAGE_MAX, wait_s=_FOLLOW_WAIT_S)
            _print(page.entries, json=json, follow=True)


def _print(entries: tuple[FlowEntry, ...], *, json: bool, follow: bool) -> None:
    records = [entry.record for entry in entries]
    if json and follow:
        # One object a line: a stream has no end at which to close a list.
        for record in records:
            console.out(msgspec.json.encode(record).decode())
    elif json:
        print_json([_document(record) for record in records])
    elif records or not follow:
        print_table(COLUMNS, [render_record(record) for record in records])


def render_record(record: FlowRecord) -> tuple[str, ...]:
    """The cells of one decision, in the order of :data:`COLUMNS`."""
    place = record.name or record.address
    port = f":{record.port}" if record.port else ""
    return (
        render_time(record.time_ms),
        record.devbox_id,
        record.verdict,
        record.point,
        f"{place}{port} {record.protocol}".strip(),
        "" if record.bytes_out is None else f"{record.bytes_out}/{record.bytes_in}",
        record.rule,
        record.sentence or record.reason,
    )


def _document(record: FlowRecord) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(record)
    return document
