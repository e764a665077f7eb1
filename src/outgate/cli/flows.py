"""``outgate flows``: what was decided, oldest first."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType
from rich.live import Live

from outgate import clock
from outgate.cli.flow_board import FlowBoard
from outgate.cli.flow_lines import COLUMNS, render_flow
from outgate.cli.output import JsonObject, clean, console, print_json, print_note, print_table
from outgate.cli.server_options import Server, with_server
from outgate.client.flow_following import Following, follow_through_restarts

_PAGE_MAX = 1000
_REFRESHES_PER_S = 4


@with_server
def flows(
    server: Server,
    *,
    devbox: Annotated[str | None, typer.Option("--devbox", help="Only this devbox's.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Only those judged by this policy (its id).")] = None,
    verdict: Annotated[str | None, typer.Option("--verdict", help="allow, deny or report_only.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Only those that name this host.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_PAGE_MAX, help="The latest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
) -> None:
    """What devboxes tried, what became of it, and the rule that decided."""
    chosen = {"devbox_id": devbox, "policy_id": policy, "verdict": verdict, "hostname": host}
    filters = {key: value for key, value in chosen.items() if value is not None}
    with server.connect() as client:
        latest = list(reversed(client.list_flows(**filters, limit=str(limit))["network_flows"]))
        if not follow:
            _print_all(latest, json=server.json)
            return
        title = f"outgate flows {' '.join(f'{name}={value}' for name, value in filters.items())}"
        with _open_view(latest, title, json=server.json) as (show, following):
            # From the last record shown, so that none falls between the two requests.
            after = latest[-1]["number"] if latest else 0
            for flow in follow_through_restarts(client, after, filters, following):
                show(flow)


def _print_all(flows: list[JsonObject], *, json: bool) -> None:
    if json:
        print_json(flows)
    else:
        print_table(COLUMNS, [render_flow(flow) for flow in flows])


@contextmanager
def _open_view(
    latest: list[JsonObject], title: str, *, json: bool
) -> Iterator[tuple[Callable[[JsonObject], None], Following]]:
    """How each decision is shown, and who hears of the connection: a live table on a terminal, lines elsewhere."""
    if not json and console.is_terminal and not console.is_dumb_terminal:
        with _open_board(latest, title) as view:
            yield view
        return
    show = _print_json_line if json else _print_line
    if not json:
        _write_line("\t".join(COLUMNS))
    for flow in latest:
        show(flow)
    lost = False

    def on_lost(why: str) -> None:
        nonlocal lost
        lost = True
        print_note(f"{why}; goes on from here when it is back")

    def on_open() -> None:
        nonlocal lost
        if lost:
            print_note("it is back")
        lost = False

    yield show, Following(on_lost, on_open, time.sleep)


@contextmanager
def _open_board(latest: list[JsonObject], title: str) -> Iterator[tuple[Callable[[JsonObject], None], Following]]:
    board = FlowBoard(title.strip())
    for flow in latest:
        board.add_past(flow)

    def render() -> RenderableType:
        return board.render(console.width, console.height, clock.monotonic_s())

    following = Following(
        on_lost=lambda why: board.set_notice(f"{why}; trying again"),
        on_open=partial(board.set_notice, ""),
        sleep=time.sleep,
    )
    with Live(get_renderable=render, console=console, refresh_per_second=_REFRESHES_PER_S, transient=False):
        yield lambda flow: board.add(flow, clock.monotonic_s()), following


def _print_json_line(flow: JsonObject) -> None:
    # One object a line: a stream has no end at which to close a list.
    _write_line(msgspec.json.encode(flow).decode())


def _print_line(flow: JsonObject) -> None:
    _write_line("\t".join(clean(cell) for cell in render_flow(flow)))


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
