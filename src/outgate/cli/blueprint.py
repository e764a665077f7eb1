"""``outgate blueprint``: images that devboxes start from, built under a policy, over the public API."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from outgate.cli.output import errors, print_fields, print_json, print_line, print_note, print_table, render_time
from outgate.cli.pairs import parse_pairs
from outgate.cli.policy_options import find_policy_id
from outgate.cli.server_options import Server, with_server
from outgate.client.public import JsonObject, OutgateClient
from outgate.errors import OutgateError

app = typer.Typer(no_args_is_help=True, help="Images that devboxes start from, built under a policy.")

_FINAL: Final = ("build_complete", "failed")
_LOOK_S: Final = 0.5
"""How often a build that is waited for is looked at."""

Blueprint = Annotated[str, typer.Argument(metavar="BLUEPRINT", help="Its id.")]
Pairs = list[str] | None


class BuildFailedError(OutgateError):
    """The build failed."""

    code = "build_failed"


@app.command("create")
@with_server
def create(
    server: Server,
    name: Annotated[str, typer.Argument(help="Several blueprints may have it; the newest that was built counts.")],
    *,
    dockerfile: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="What to build.")] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="BLUEPRINT", help="Build upon this one.")] = None,
    setup: Annotated[Pairs, typer.Option("--setup", metavar="COMMAND", help="Run it as root. Repeat it.")] = None,
    build_arg: Annotated[Pairs, typer.Option("--build-arg", metavar="NAME=VALUE", help="Repeat it.")] = None,
    context: Annotated[str | None, typer.Option("--context", metavar="OBJECT", help="A stored tgz archive.")] = None,
    secret: Annotated[Pairs, typer.Option("--secret", metavar="NAME=SECRET", help="Repeat it.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="The build's: an id or a name.")] = None,
    launch_policy: Annotated[
        str | None, typer.Option("--launch-policy", help="Its devboxes': an id or a name.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the log, and return once it is built.")] = True,
) -> None:
    """Build a blueprint. Its policy holds for everything that the build does."""
    body: dict[str, Any] = {"name": name, "system_setup_commands": setup or []}
    if dockerfile is not None:
        body |= {"dockerfile": dockerfile.read_text(), "build_args": parse_pairs(build_arg, "--build-arg")}
    if base is not None:
        body["base_blueprint_id" if base.startswith("bpt_") else "base_blueprint_name"] = base
    if context is not None:
        body["build_context"] = {"type": "object", "object_id": context}
    body["secrets"] = parse_pairs(secret, "--secret")
    with server.connect() as client:
        if policy is not None:
            body["network_policy_id"] = find_policy_id(client, policy)
        if launch_policy is not None:
            body["launch_parameters"] = {"network_policy_id": find_policy_id(client, launch_policy)}
        view = client.create_blueprint(body)
        if wait:
            view = _await_built(client, view["id"], shows_log=not server.json)
    _print_blueprint(view, json=server.json)
    if wait and view["status"] != "build_complete":
        raise BuildFailedError(f"{view['id']} was not built: {view.get('failure_detail') or view['failure_reason']}")


@app.command("list")
@with_server
def list_(
    server: Server,
    *,
    name: Annotated[str | None, typer.Option("--name")] = None,
    status: Annotated[str | None, typer.Option("--status", help="building, build_complete, …")] = None,
) -> None:
    """The account's blueprints, newest first."""
    filters = {key: value for key, value in (("name", name), ("status", status)) if value}
    with server.connect() as client:
        blueprints = list(client.list_blueprints(**filters))
    if server.json:
        print_json(blueprints)
        return
    rows = [(b["id"], b["name"], b["status"], render_time(b["create_time_ms"])) for b in blueprints]
    print_table(("id", "name", "status", "created"), rows)


@app.command("get")
@with_server
def get(server: Server, blueprint: Blueprint) -> None:
    """One blueprint."""
    with server.connect() as client:
        _print_blueprint(client.get_blueprint(blueprint), json=server.json)


@app.command("logs")
@with_server
def logs(server: Server, blueprint: Blueprint) -> None:
    """What the build has said so far."""
    with server.connect() as client:
        lines = client.read_build_log(blueprint)
    if server.json:
        print_json(lines)
        return
    for line in lines:
        print_line(line["message"])


@app.command("delete")
@with_server
def delete(server: Server, blueprint: Blueprint) -> None:
    """Delete a blueprint; a build that runs is cancelled."""
    with server.connect() as client:
        client.delete_blueprint(blueprint)
    server.note({"id": blueprint, "state": "deleted"}, f"deleted {blueprint}")


def _await_built(client: OutgateClient, blueprint_id: str, *, shows_log: bool) -> JsonObject:
    shown = 0
    with errors.status("building"):
        while True:
            view = client.get_blueprint(blueprint_id)
            if shows_log:
                lines = client.read_build_log(blueprint_id)
                for line in lines[shown:]:
                    print_note(line["message"])
                shown = len(lines)
            if view["status"] in _FINAL:
                return view
            time.sleep(_LOOK_S)


def _print_blueprint(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    parameters = view["parameters"]
    print_fields(
        {
            "id": view["id"],
            "name": view["name"],
            "status": view["status"],
            "build policy": parameters.get("network_policy_id"),
            "launch policy": (parameters.get("launch_parameters") or {}).get("network_policy_id"),
            "failure": view.get("failure_detail"),
            "created": render_time(view["create_time_ms"]),
        }
    )
