"""``outgate object``: files that devboxes and builds can be given, over the public API."""

from pathlib import Path
from typing import Annotated, Final

import typer

from outgate.cli.output import print_fields, print_json, print_table, render_time
from outgate.cli.pairs import parse_pairs
from outgate.cli.server_options import Server, with_server
from outgate.client.public import JsonObject
from outgate.errors import OutgateError

app = typer.Typer(no_args_is_help=True, help="Storage objects: files for devboxes and builds.")

_TYPES: Final = {
    (".tar.gz", ".tgz"): "tgz",
    (".tar",): "tar",
    (".gz",): "gzip",
    (".txt", ".md", ".json", ".yaml", ".yml", ".csv", ".html", ".xml", ".css", ".js"): "text",
}
"""What the official clients take file names for."""

Object = Annotated[str, typer.Argument(metavar="OBJECT", help="Its id.")]
Metadata = Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeat it.")]


class UnreadableFileError(OutgateError):
    """The file to upload cannot be read."""

    code = "file_unreadable"


@app.command("list")
@with_server
def list_(
    server: Server,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Only those whose name holds this.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="UPLOADING, READ_ONLY, DELETED, ERROR.")] = None,
) -> None:
    """The account's objects, newest first."""
    filters = {key: value for key, value in (("name", name), ("state", state)) if value}
    with server.connect() as client:
        objects = list(client.list_objects(**filters))
    if server.json:
        print_json(objects)
        return
    rows = [
        (o["id"], o["name"], o["content_type"], o["state"], o["size_bytes"], render_time(o["create_time_ms"]))
        for o in objects
    ]
    print_table(("id", "name", "type", "state", "bytes", "created"), rows)


@app.command("get")
@with_server
def get(
    server: Server,
    object_id: Object,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Download the bytes to this file.")] = None,
) -> None:
    """One object; its bytes, too, with --output."""
    with server.connect() as client:
        view = client.get_object(object_id)
        if output is not None:
            try:
                client.download_object(object_id, output)
            except OSError as error:
                raise UnreadableFileError(f"{output} cannot be written: {error.strerror}.") from None
    _print_object(view, json=server.json)


@app.command("upload")
@with_server
def upload(
    server: Server,
    file: Annotated[Path, typer.Argument(help="What to upload.")],
    *,
    name: Annotated[str | None, typer.Option("--name", help="\\[default: the file's]")] = None,
    content_type: Annotated[
        str | None, typer.Option("--type", help="text, binary, gzip, tar, tgz. \\[default: by the file's name]")
    ] = None,
    metadata: Metadata = None,
    ttl_s: Annotated[int | None, typer.Option("--ttl", metavar="SECONDS", min=1, help="Delete it after that.")] = None,
) -> None:
    """Upload a file as a new object."""
    body: dict[str, object] = {"name": name or file.name, "content_type": content_type or guess_type(file.name)}
    if metadata:
        body["metadata"] = parse_pairs(metadata, "--metadata")
    if ttl_s is not None:
        body["ttl_ms"] = ttl_s * 1000
    try:
        with file.open("rb") as content, server.connect() as client:
            view = client.upload_object(body, content)
    except OSError as error:
        raise UnreadableFileError(f"{file} cannot be read: {error.strerror}.") from None
    _print_object(view, json=server.json)


@app.command("delete")
@with_server
def delete(server: Server, object_id: Object) -> None:
    """Delete an object and its bytes."""
    with server.connect() as client:
        view = client.delete_object(object_id)
    server.note(view, f"deleted {view['id']} ({view['name']})")


def guess_type(name: str) -> str:
    """The content type that a file's name speaks of; ``unspecified`` when it speaks of none."""
    lower = name.lower()
    return next((kind for endings, kind in _TYPES.items() if lower.endswith(endings)), "unspecified")


def _print_object(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    ends_ms = view["delete_after_time_ms"]
    print_fields(
        {
            "id": view["id"],
            "name": view["name"],
            "type": view["content_type"],
            "state": view["state"],
            "bytes": view["size_bytes"],
            "created": render_time(view["create_time_ms"]),
            "deleted after": render_time(ends_ms) if ends_ms else None,
            "metadata": " ".join(f"{key}={value}" for key, value in view["metadata"].items()),
        }
    )
