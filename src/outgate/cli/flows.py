"""``outgate flows``: what was decided, oldest first."""

import sys
from collections.abc import Mapping
from typing import Annotated

import msgspec
import typer

from outgate.cli.output import JsonObject, print_json, print_table, render_time
from outgate.cli.server_options import Server, with_server

_PAGE_MAX = 1000
COLUMNS = ("time", "devbox", "verdict", "at", "to", "out/in", "rule", "why")


@with_server
def flows(
    server: Server,
    *,
    devbox: Annotated[str | None, typer.Option("--devbox", help="Only this devbox's.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Only those judged by this policy (its id).")] = None,
    verdict: Annotated[str | None, typer.Option("--verdict", help="allow or deny.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Only those that name this host.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_PAGE_MAX, help="The latest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
) -> None:
    """What devboxes tried, what became of it, and the rule that decided."""
    chosen = {"devbox_id": devbox, "policy_id": policy, "verdict": verdict, "hostname": host}
    filters = {key: value for key, value in chosen.items() if value is not None}
    with server.connect() as client:
        latest = list(reversed(client.list_flows(**filters, limit=str(limit))["network_flows"]))
        _print(latest, json=server.json, follow=follow)
        if follow:
            # From the last record shown, so that none falls between the two requests.
            after = latest[-1]["number"] if latest else 0
            for flow in client.follow_flows(after, **filters):
                _print([flow], json=server.json, follow=True)


def _print(flows: list[JsonObject], *, json: bool, follow: bool) -> None:
    if json and follow:
        # One object a line: a stream has no end at which to close a list.
        for flow in flows:
            sys.stdout.write(msgspec.json.encode(flow).decode() + "\n")
            sys.stdout.flush()
    elif json:
        print_json(flows)
    elif flows or not follow:
        print_table(COLUMNS, [render_flow(flow) for flow in flows])


def render_flow(flow: Mapping[str, object]) -> tuple[str, ...]:
    """The cells of one record as the API tells it, in the order of :data:`COLUMNS`."""
    times = flow["count"]
    return (
        render_time(flow["time_ms"]),
        str(flow["devbox_id"]),
        f"{flow['verdict']}" if times == 1 else f"{flow['verdict']} x{times}",
        str(flow["enforcement_point"]),
        f"{render_place(flow)} {flow['protocol'] or ''}".strip(),
        "" if flow["bytes_out"] is None else f"{flow['bytes_out']}/{flow['bytes_in']}",
        str(flow["rule"] or ""),
        str(flow["sentence"] or flow["reason"]),
    )


def render_place(flow: Mapping[str, object]) -> str:
    """Where to: the name or else the address, and the port if there is one."""
    port = flow["port"]
    return f"{flow['hostname'] or flow['address'] or ''}{f':{port}' if port else ''}"
