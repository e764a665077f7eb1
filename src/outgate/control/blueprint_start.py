"""Starting from a blueprint: which one is meant, and what a devbox, or another build, takes over from it."""

import json

from sqlalchemy import Connection

from outgate.control.blueprint_states import BlueprintStatus
from outgate.control.calls import Call
from outgate.control.ids import IdPrefix, is_id
from outgate.control.start_images import StartImage
from outgate.errors import InvalidValueError
from outgate.store.blueprints import BlueprintRow, find_blueprint_locked, find_newest_blueprint


def find_blueprint_start(
    tx: Connection,
    call: Call,
    *,
    blueprint_id: str | None = None,
    blueprint_name: str | None = None,
    field_prefix: str = "",
) -> StartImage:
    """The image of the caller's blueprint, and the launch parameters that it hands on.

    ``blueprint_name`` means the newest one of that name whose build succeeded. ``field_prefix`` stands before the
    names of the two in a refusal. Raises InvalidValueError for one that is unknown, deleted or not built.
    """
    if blueprint_id is not None:
        row = _find_by_id(tx, call, blueprint_id, f"{field_prefix}blueprint_id")
    elif blueprint_name is not None:
        row = _find_by_name(tx, call, blueprint_name, f"{field_prefix}blueprint_name")
    else:
        raise InvalidValueError("Name a blueprint by its id or its name.", field=f"{field_prefix}blueprint_id")
    parameters = json.loads(row.parameters)
    return StartImage(
        image=row.id,
        host_id=row.host_id,
        blueprint_id=row.id,
        launch_parameters=parameters.get("launch_parameters") or {},
    )


def _find_by_id(tx: Connection, call: Call, blueprint_id: str, field: str) -> BlueprintRow:
    is_one = is_id(IdPrefix.BLUEPRINT, blueprint_id)
    # Locked: it must not be deleted before what starts from it is stored.
    row = find_blueprint_locked(tx, call.account_id, blueprint_id) if is_one else None
    if row is None or row.delete_time_ms is not None:
        message = f"There is no blueprint {blueprint_id[:80]!r} in this account; create it first."
        raise InvalidValueError(message, field=field, code="unknown_blueprint")
    if row.status != BlueprintStatus.BUILD_COMPLETE:
        message = f"Blueprint {row.id} is {row.status}; only one whose build is complete can be started from."
        raise InvalidValueError(message, field=field, code="blueprint_not_built")
    return row


def _find_by_name(tx: Connection, call: Call, name: str, field: str) -> BlueprintRow:
    # A name with NUL is nobody's; PostgreSQL would refuse it with an error.
    is_storable = "\x00" not in name
    status = BlueprintStatus.BUILD_COMPLETE.value
    found = find_newest_blueprint(tx, call.account_id, name, status=status) if is_storable else None
    if found is None:
        message = f"No blueprint named {name[:80]!r} of this account was built successfully; create it first."
        raise InvalidValueError(message, field=field, code="unknown_blueprint")
    return _find_by_id(tx, call, found.id, field)
