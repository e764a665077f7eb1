"""``outgate secret``: values that devboxes get as environment variables, over the public API."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from outgate.cli.output import print_fields, print_json, print_table, render_time
from outgate.cli.server_options import Server, with_server
from outgate.client.public import JsonObject
from outgate.errors import OutgateError

app = typer.Typer(no_args_is_help=True, help="Secrets: values for devboxes that are never shown again.")

_VALUE_BYTES_MAX = 1024 * 1024
"""More than the server takes: enough to let it say so, and not a whole disk."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and '_'.")]
ValueFile = Annotated[
    Path | None, typer.Option("--file", help="Read the value from a file. \\[default: from standard input]")
]


class NoValueError(OutgateError):
    """The value could not be read."""

    code = "no_value"


@app.command("create")
@with_server
def create(
    server: Server,
    name: Name,
    *,
    file: ValueFile = None,
) -> None:
    """Store a secret. Its value is read, not given as an argument: arguments show in the list of processes."""
    value = _read_value(file)
    with server.connect() as client:
        _print_secret(client.create_secret(name, value), json=server.json)


@app.command("list")
@with_server
def list_(server: Server) -> None:
    """The account's secrets, newest first, without values."""
    with server.connect() as client:
        secrets = client.list_secrets()
    if server.json:
        print_json(secrets)
        return
    rows = [(s["id"], s["name"], render_time(s["create_time_ms"]), render_time(s["update_time_ms"])) for s in secrets]
    print_table(("id", "name", "created", "updated"), rows)


@app.command("update")
@with_server
def update(
    server: Server,
    name: Name,
    *,
    file: ValueFile = None,
) -> None:
    """Give a secret another value. Devboxes get it when they start or resume."""
    value = _read_value(file)
    with server.connect() as client:
        _print_secret(client.update_secret(name, value), json=server.json)


@app.command("delete")
@with_server
def delete(server: Server, name: Name) -> None:
    """Delete a secret and its value."""
    with server.connect() as client:
        view = client.delete_secret(name)
    server.note(view, f"deleted {view['id']} ({view['name']})")


def _read_value(file: Path | None) -> str:
    """The value, without the newline at its end that editors and ``echo`` add. Raises NoValueError."""
    if file is None and sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True))
    try:
        if file is None:
            data = sys.stdin.buffer.read(_VALUE_BYTES_MAX)
        else:
            with file.open("rb") as opened:
                data = opened.read(_VALUE_BYTES_MAX)
        return data.decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise NoValueError(f"The value cannot be read from {file or 'standard input'}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise NoValueError("The value is not UTF-8 text; encode it first, for example with base64.") from None


def _print_secret(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    times = {"created": render_time(view["create_time_ms"]), "updated": render_time(view["update_time_ms"])}
    print_fields({"id": view["id"], "name": view["name"], **times})
