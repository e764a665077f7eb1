"""Blueprints: get, list, read what their builds said; and take in what hosts say of them."""

from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.control.blueprint_states import is_running
from outgate.control.blueprints import blueprint_not_found
from outgate.control.callers import Caller
from outgate.control.ids import IdPrefix, is_id
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.model.desired import BuildLine, BuildLogPart
from outgate.store.blueprints import (
    BlueprintFilter,
    BlueprintRow,
    add_log_part,
    count_listed_blueprints,
    find_blueprint,
    find_host_blueprints_locked,
    list_blueprints,
    read_log_parts,
)
from outgate.store.hosts import HostRow

_LINES: Final = msgspec.json.Decoder(tuple[BuildLine, ...])


@dataclass(frozen=True, slots=True)
class BlueprintPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    blueprints: tuple[BlueprintRow, ...]
    has_more: bool
    total_count: int | None


async def get_blueprint(services: Services, caller: Caller, blueprint_id: str) -> BlueprintRow:
    """The caller's blueprint, a deleted one too. Raises NotFoundError."""
    return await read_as(services, caller, lambda tx: _find(tx, caller, blueprint_id))


async def page_blueprints(
    services: Services, caller: Caller, wanted: BlueprintFilter, *, limit: int, count_total: bool
) -> BlueprintPage:
    """At most ``limit`` of the caller's blueprints, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> BlueprintPage:
        rows = list_blueprints(tx, caller.account_id, wanted, limit=limit + 1)
        total = count_listed_blueprints(tx, caller.account_id, wanted) if count_total else None
        return BlueprintPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


async def read_build_log(services: Services, caller: Caller, blueprint_id: str) -> tuple[BuildLine, ...]:
    """What the build has said so far, oldest first; bounded where it is written. Raises NotFoundError."""

    def read(tx: Connection) -> tuple[BlueprintRow, list[str]]:
        return _find(tx, caller, blueprint_id), read_log_parts(tx, blueprint_id)

    row, parts = await read_as(services, caller, read)
    lines = tuple(line for part in parts for line in _LINES.decode(part))
    if row.detail and row.finish_time_ms is not None and (not lines or lines[-1].message != row.detail):
        # The reason of a build that could say nothing itself, because it never started or was ended from here.
        lines = (*lines, BuildLine(row.finish_time_ms, row.detail, "error"))
    return lines


async def take_build_log(services: Services, host: HostRow, blueprint_id: str, part: BuildLogPart) -> None:
    """Keep what a host's build said; once, however often it is sent. What is not the host's, or is over, is dropped."""
    lines = msgspec.json.encode(part.lines).decode().replace("\\u0000", "\\ufffd")

    def take(tx: Connection) -> None:
        rows = find_host_blueprints_locked(tx, host.id, [blueprint_id])
        if rows and is_running(rows[0]):
            add_log_part(tx, blueprint_id, part.attempt, part.number, lines)

    await services.database.write(take)


def _find(tx: Connection, caller: Caller, blueprint_id: str) -> BlueprintRow:
    row = find_blueprint(tx, caller.account_id, blueprint_id) if is_id(IdPrefix.BLUEPRINT, blueprint_id) else None
    if row is None:
        raise blueprint_not_found(blueprint_id)
    return row
