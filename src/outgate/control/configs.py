"""Gateway and MCP configurations: the five operations, the same for both kinds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.config_input import ConfigDocument, ConfigInput, merge_config
from outgate.control.errors import ConflictError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim, claim_new, unless_deleted
from outgate.control.secrets import find_secret_reference
from outgate.control.services import Services
from outgate.control.texts import parse_name
from outgate.control.transactions import read_as, write_as
from outgate.errors import InvalidValueError
from outgate.store.configs import (
    ConfigFilter,
    ConfigRow,
    count_configs,
    count_listed,
    find_config,
    find_config_by_name,
    find_config_locked,
    forget_config_uses,
    insert_config,
    insert_config_use,
    list_configs,
    list_live_config_users,
    save_config,
)
from outgate.store.policies import lock_account

_USERS_NAMED_MAX: Final = 5
_DECODER: Final = msgspec.json.Decoder(ConfigDocument)


class ConfigKind(StrEnum):
    """Which of the two. The values are those of the store."""

    GATEWAY = "gateway"
    MCP = "mcp"


_PREFIXES: Final = {ConfigKind.GATEWAY: IdPrefix.GATEWAY_CONFIG, ConfigKind.MCP: IdPrefix.MCP_CONFIG}
_NAMES: Final = {ConfigKind.GATEWAY: "gateway config", ConfigKind.MCP: "MCP config"}
_TYPES: Final = {ConfigKind.GATEWAY: "GatewayConfig", ConfigKind.MCP: "McpConfig"}


@dataclass(frozen=True, slots=True)
class ConfigPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    configs: tuple[ConfigRow, ...]
    has_more: bool
    total_count: int | None


def decode_config(row: ConfigRow) -> ConfigDocument:
    """What the configuration says."""
    return _DECODER.decode(row.document)


async def create_config(services: Services, call: Call, kind: ConfigKind, given: ConfigInput) -> ConfigRow:
    """A new configuration. Raises InvalidValueError (at the limit, too), ConflictError for a name that is taken."""
    name = parse_name(given.name or "")

    def create(tx: Connection) -> ConfigRow:
        config_id = services.ids.make(_PREFIXES[kind], call.now_ms)
        known = claim_new(
            tx,
            call.request,
            config_id,
            call.now_ms,
            lambda made: unless_deleted(find_config(tx, call.account_id, kind, made)),
        )
        if known is not None:
            return known
        lock_account(tx, call.account_id)
        _check_limit(tx, call, services.settings.configs_max)
        _check_name(tx, call, kind, name)
        document = merge_config(None, given, _find_secret_ids(tx, call, given))
        row = ConfigRow(config_id, call.account_id, kind.value, name, _encode(document), call.now_ms, None)
        insert_config(tx, row)
        return row

    return await write_as(services, call.caller, create)


async def update_config(
    services: Services, call: Call, kind: ConfigKind, config_id: str, given: ConfigInput
) -> ConfigRow:
    """The configuration with the given fields in place of its own.

    Raises NotFoundError, InvalidValueError, ConflictError for a name that is taken.
    """
    name = None if given.name is None else parse_name(given.name)

    def change(tx: Connection) -> ConfigRow:
        row = _find_live(tx, call, kind, config_id)
        if claim(tx, call.request, config_id, call.now_ms) is not None:
            return row
        if name is not None and name != row.name:
            _check_name(tx, call, kind, name)
        document = merge_config(decode_config(row), given, _find_secret_ids(tx, call, given))
        changed = replace(row, name=name or row.name, document=_encode(document))
        save_config(tx, changed)
        return changed

    return await write_as(services, call.caller, change)


async def delete_config(services: Services, call: Call, kind: ConfigKind, config_id: str) -> ConfigRow:
    """What the configuration was last. Raises NotFoundError, InvalidValueError while live devboxes use it."""

    def delete(tx: Connection) -> ConfigRow:
        if not is_id(_PREFIXES[kind], config_id):
            raise _not_found(kind, config_id)
        if claim(tx, call.request, config_id, call.now_ms) is not None:
            deleted = find_config(tx, call.account_id, kind, config_id)
            if deleted is not None:
                return deleted
        # Whoever makes a devbox holds the account, too: no devbox comes to use it in between.
        lock_account(tx, call.account_id)
        row = _find_live(tx, call, kind, config_id)
        users = list_live_config_users(tx, config_id)
        if users:
            named = ", ".join(users[:_USERS_NAMED_MAX]) + (", …" if len(users) > _USERS_NAMED_MAX else "")
            message = f"{_TYPES[kind]} {config_id} is in use by {len(users)} of the devboxes ({named}); end them first."
            raise InvalidValueError(message, code="config_in_use")
        forget_config_uses(tx, config_id)
        save_config(tx, replace(row, delete_time_ms=call.now_ms))
        return row

    return await write_as(services, call.caller, delete)


async def get_config(services: Services, caller: Caller, kind: ConfigKind, config_id: str) -> ConfigRow:
    """The caller's configuration. Raises NotFoundError."""

    def read(tx: Connection) -> ConfigRow:
        row = find_config(tx, caller.account_id, kind, config_id) if is_id(_PREFIXES[kind], config_id) else None
        if row is None or row.delete_time_ms is not None:
            raise _not_found(kind, config_id)
        return row

    return await read_as(services, caller, read)


async def page_configs(
    services: Services, caller: Caller, kind: ConfigKind, wanted: ConfigFilter, *, limit: int, count_total: bool
) -> ConfigPage:
    """At most ``limit`` of the caller's configurations, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> ConfigPage:
        rows = list_configs(tx, caller.account_id, kind, wanted, limit=limit + 1)
        total = count_listed(tx, caller.account_id, kind, wanted) if count_total else None
        return ConfigPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


def find_config_reference(
    tx: Connection, account_id: str, kind: ConfigKind, reference: str, *, field: str
) -> ConfigRow:
    """The live configuration that an id or a name means. Raises InvalidValueError naming ``field``."""
    row = None
    if is_id(_PREFIXES[kind], reference):
        row = find_config(tx, account_id, kind, reference)
    elif reference.isprintable():
        row = find_config_by_name(tx, account_id, kind, reference)
    if row is None or row.delete_time_ms is not None:
        message = f"There is no {_NAMES[kind]} {reference[:80]!r} in this account; create it first."
        raise InvalidValueError(message, field=field, code="unknown_config")
    return row


def note_config_use(tx: Connection, config_id: str, devbox_id: str) -> None:
    """Store that a new devbox uses the configuration: it cannot be deleted while that devbox lives."""
    insert_config_use(tx, config_id, devbox_id)


def _find_secret_ids(tx: Connection, call: Call, given: ConfigInput) -> Mapping[str, str]:
    return {
        header.secret: find_secret_reference(
            tx, call.account_id, header.secret, field=f"custom_headers[{index}].secret"
        ).id
        for index, header in enumerate(given.headers or ())
        if header.secret is not None
    }


def _find_live(tx: Connection, call: Call, kind: ConfigKind, config_id: str) -> ConfigRow:
    row = find_config_locked(tx, call.account_id, kind, config_id) if is_id(_PREFIXES[kind], config_id) else None
    if row is None or row.delete_time_ms is not None:
        raise _not_found(kind, config_id)
    return row


def _check_limit(tx: Connection, call: Call, configs_max: int) -> None:
    if count_configs(tx, call.account_id) >= configs_max:
        message = f"The account already has {configs_max} configurations, the most it may have; delete one first."
        raise InvalidValueError(message, code="config_limit")


def _check_name(tx: Connection, call: Call, kind: ConfigKind, name: str) -> None:
    taken_by = find_config_by_name(tx, call.account_id, kind, name)
    if taken_by is not None:
        message = f"A {_NAMES[kind]} named {name!r} already exists: {taken_by.id}. Update it, or choose another name."
        raise ConflictError(message, code="name_taken")


def _encode(document: ConfigDocument) -> str:
    return msgspec.json.encode(document).decode()


def _not_found(kind: ConfigKind, config_id: str) -> NotFoundError:
    shown = config_id if is_id(_PREFIXES[kind], config_id) else repr(config_id[:80])
    return NotFoundError(f"{_TYPES[kind]} {shown} not found.", code=f"{kind}_config_not_found")
