"""``outgate account`` and ``outgate key``: on this host's store, as root; no server has to run."""

from typing import Annotated

import typer

from outgate.cli.connection import Json, StateDir
from outgate.cli.output import print_fields, print_json, print_note, print_table, render_time
from outgate.cli.store import open_store
from outgate.clock import wall_ms
from outgate.control.accounts import (
    FIRST_ACCOUNT_NAME,
    NewKey,
    create_account,
    create_key,
    list_accounts,
    list_keys,
    revoke_key,
)
from outgate.control.ids import IdMaker
from outgate.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Accounts: who owns policies and devboxes.")
key_app = typer.Typer(no_args_is_help=True, help="API keys of accounts.")

Account = Annotated[str, typer.Option("--account", help="An id or a name.")]


@app.command("create")
def create(name: str, *, json: Json = False, state_dir: StateDir = None) -> None:
    """Make an account and its first API key, which is shown this once."""
    with open_store(load_settings(state_dir=state_dir)) as database:
        _print_key(create_account(database, IdMaker(), name, wall_ms()), json=json)


@app.command("list")
def list_(*, json: Json = False, state_dir: StateDir = None) -> None:
    """All accounts, oldest first."""
    with open_store(load_settings(state_dir=state_dir)) as database:
        accounts = list_accounts(database)
    if json:
        print_json([{"id": a.id, "name": a.name, "create_time_ms": a.create_time_ms} for a in accounts])
    else:
        print_table(("id", "name", "created"), [(a.id, a.name, render_time(a.create_time_ms)) for a in accounts])


@key_app.command("create")
def create_key_(
    *,
    account: Account = FIRST_ACCOUNT_NAME,
    name: Annotated[str, typer.Option("--name", help="For people.")] = "cli",
    json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Make another API key, which is shown this once."""
    with open_store(load_settings(state_dir=state_dir)) as database:
        _print_key(create_key(database, IdMaker(), account, name, wall_ms()), json=json)


@key_app.command("list")
def list_keys_(*, account: Account = FIRST_ACCOUNT_NAME, json: Json = False, state_dir: StateDir = None) -> None:
    """The account's API keys, revoked ones too. The keys themselves are stored nowhere."""
    with open_store(load_settings(state_dir=state_dir)) as database:
        keys = list_keys(database, account)
    if json:
        fields = ("id", "account_id", "name", "create_time_ms", "revoke_time_ms")
        print_json([{field: getattr(key, field) for field in fields} for key in keys])
        return
    rows = [(k.id, k.name, render_time(k.create_time_ms), render_time(k.revoke_time_ms)) for k in keys]
    print_table(("id", "name", "created", "revoked"), rows)


@key_app.command("revoke")
def revoke(key: Annotated[str, typer.Argument(metavar="KEY_ID")], *, state_dir: StateDir = None) -> None:
    """Make a key worthless from now on."""
    with open_store(load_settings(state_dir=state_dir)) as database:
        row = revoke_key(database, key, wall_ms())
    print_note(f"revoked {row.id} ({row.name})")


def _print_key(made: NewKey, *, json: bool) -> None:
    fields = {"account_id": made.account_id, "key_id": made.key_id, "api_key": made.api_key}
    if json:
        print_json(fields)
    else:
        print_fields(fields)
        print_note("the key is shown this once; only its digest is stored")
