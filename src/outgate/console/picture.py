"""Who talks to what: devboxes and hosts, allowed and denied, over time."""

from typing import Final

from starlette.responses import Response

from outgate.console.visits import Visit
from outgate.control.conversations import STEPS, Tally, sum_conversations

RANGES: Final = {
    "1h": ("Last hour", 3_600_000),
    "24h": ("Last 24 hours", 86_400_000),
    "7d": ("Last 7 days", 604_800_000),
}
_RANGE_DEFAULT: Final = "24h"
CHART_HEIGHT: Final = 96
_SPARK_HEIGHT: Final = 20
_LEVELS: Final = 5
"""Shades of a cell, from some to most."""


async def show_picture(visit: Visit) -> Response:
    """Sums of the flow log: a chart over time, and a table of hosts and devboxes."""
    chosen = visit.query("range") if visit.query("range") in RANGES else _RANGE_DEFAULT
    length_ms = RANGES[chosen][1]
    earliest_ms = STEPS * 1000
    since_ms, until_ms = (visit.number(name, last=visit.now_ms) for name in ("since", "until"))
    if since_ms is None or until_ms is None or until_ms - since_ms < earliest_ms:
        since_ms, until_ms = visit.now_ms - length_ms, visit.now_ms
    found = await sum_conversations(visit.services, visit.caller, since_ms=since_ms, until_ms=until_ms)
    return await visit.page(
        "picture.html",
        found=found,
        ranges=RANGES,
        chosen=chosen if visit.number("since") is None else None,
        bars=draw_bars(found.steps, CHART_HEIGHT),
        height=CHART_HEIGHT,
        sparks={host: draw_bars(steps, _SPARK_HEIGHT) for host, steps in found.steps_by_host.items()},
        spark_height=_SPARK_HEIGHT,
        steps=STEPS,
        is_name=is_name,
        level=lambda tally: find_level(tally, max((cell.total for cell in found.cells.values()), default=1)),
    )


Bar = tuple[int, int, int, str]
"""Column, top, height (in units of the drawing) and class of one rectangle."""


def draw_bars(steps: tuple[Tally, ...], height: int) -> list[Bar]:
    """Stacked bars: allowed below, then what was only reported, denied on top. Whatever is not zero can be seen."""
    most = max((tally.total for tally in steps), default=0)
    bars: list[Bar] = []
    for column, tally in enumerate(steps):
        bottom = height
        for count, name in ((tally.allowed, "allowed"), (tally.reported, "reported"), (tally.denied, "denied")):
            if count:
                size = min(bottom, max(2, round(count * height / most)))
                bottom -= size
                bars.append((column, bottom, size, name))
    return bars


def is_name(host: str) -> bool:
    """Whether flows can be asked for by it: addresses stand in another column."""
    return ":" not in host and not host.rpartition(".")[2].isdigit()


def find_level(tally: Tally, most: int) -> int:
    """The shade of a cell, 1 to _LEVELS: by the number of digits, since a few hosts have nearly all of the traffic."""
    return max(1, min(_LEVELS, round(_LEVELS * tally.total.bit_length() / max(1, most.bit_length()))))
