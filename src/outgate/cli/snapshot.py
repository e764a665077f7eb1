"""``outgate snapshot``: disks of devboxes that others start from, over the public API."""

import time
from typing import Annotated, Any, Final

import typer

from outgate.cli.output import errors, print_fields, print_json, print_table, render_time
from outgate.cli.pairs import parse_pairs
from outgate.cli.server_options import Server, with_server
from outgate.client.public import JsonObject, OutgateClient
from outgate.errors import OutgateError

app = typer.Typer(no_args_is_help=True, help="Disks of devboxes that other devboxes start from.")

_LOOK_S: Final = 0.5
"""How often a snapshot that is waited for is looked at."""

Snapshot = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Its id.")]


class SnapshotFailedError(OutgateError):
    """The snapshot came to nothing."""

    code = "snapshot_failed"


@app.command("create")
@with_server
def create(
    server: Server,
    devbox: Annotated[str, typer.Argument(metavar="DEVBOX", help="The id of a running or suspended one.")],
    *,
    name: Annotated[str | None, typer.Option("--name")] = None,
    message: Annotated[str | None, typer.Option("--message", help="What is on the disk, and why.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeat it.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once it is complete.")] = True,
) -> None:
    """Keep the disk of a devbox as it is now. The devbox goes on; processes and connections are not kept."""
    body: dict[str, Any] = {"metadata": parse_pairs(metadata, "--metadata")}
    if name is not None:
        body["name"] = name
    if message is not None:
        body["commit_message"] = message
    with server.connect() as client:
        view = client.create_snapshot(devbox, body)
        if wait:
            view = _await_complete(client, view)
    _print_snapshot(view, json=server.json)


@app.command("list")
@with_server
def list_(
    server: Server,
    *,
    devbox: Annotated[str | None, typer.Option("--devbox", help="Only those of this devbox, by its id.")] = None,
) -> None:
    """The account's snapshots, newest first."""
    with server.connect() as client:
        snapshots = list(client.list_snapshots(**({"devbox_id": devbox} if devbox else {})))
    if server.json:
        print_json(snapshots)
        return
    rows = [
        (s["id"], s.get("name"), s["source_devbox_id"], _size(s), render_time(s["create_time_ms"])) for s in snapshots
    ]
    print_table(("id", "name", "devbox", "size", "created"), rows)


@app.command("delete")
@with_server
def delete(server: Server, snapshot: Snapshot) -> None:
    """Delete a snapshot. Devboxes that were started from it go on."""
    with server.connect() as client:
        client.delete_snapshot(snapshot)
    server.note({"id": snapshot, "status": "deleted"}, f"deleted {snapshot}")


def _await_complete(client: OutgateClient, view: JsonObject) -> JsonObject:
    with errors.status(f"making {view['id']}"):
        while (state := client.get_snapshot_status(str(view["id"])))["status"] == "in_progress":
            time.sleep(_LOOK_S)
    if state["status"] != "complete":
        raise SnapshotFailedError(f"{view['id']}: {state.get('error_message') or state['status']}")
    snapshot: JsonObject = state["snapshot"]
    return snapshot


def _size(view: JsonObject) -> str:
    size_bytes = view.get("size_bytes")
    return "" if size_bytes is None else f"{int(size_bytes) / (1 << 20):.1f} MiB"


def _print_snapshot(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    print_fields(
        {
            "id": view["id"],
            "name": view.get("name"),
            "message": view.get("commit_message"),
            "devbox": view["source_devbox_id"],
            "size": _size(view),
            "created": render_time(view["create_time_ms"]),
        }
    )
