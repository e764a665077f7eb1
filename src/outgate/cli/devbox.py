"""``outgate devbox``: sandboxes, over the public API."""

import shlex
import sys
from typing import Annotated, Any

import typer

from outgate.cli.connection import ApiKey, Json, StateDir, Url, connect
from outgate.cli.output import errors, print_fields, print_json, print_note, print_table, render_time
from outgate.cli.policy import find_policy_id
from outgate.client.public import JsonObject, OutgateClient
from outgate.errors import OutgateError

app = typer.Typer(no_args_is_help=True, help="Sandboxes whose traffic obeys a policy.")

_FINAL = ("failure", "shutdown")

Devbox = Annotated[str, typer.Argument(metavar="DEVBOX", help="Its id.")]


class DevboxFailedError(OutgateError):
    """The devbox ended before it ran."""

    code = "devbox_failed"


@app.command("create")
def create(
    *,
    policy: Annotated[str | None, typer.Option("--policy", help="An id or a name. [default: the server's own]")] = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Repeat it.")] = None,
    keep_alive_s: Annotated[int | None, typer.Option("--keep-alive", metavar="SECONDS", min=1)] = None,
    root: Annotated[bool, typer.Option("--root", help="Run as root instead of `user`.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once it runs.")] = True,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    state_dir: StateDir = None,
) -> None:
    """Start a devbox. Its policy holds from before its first process."""
    launch: dict[str, Any] = {}
    if keep_alive_s is not None:
        launch["keep_alive_time_seconds"] = keep_alive_s
    if root:
        launch["user_parameters"] = {"username": "root", "uid": 0}
    with connect(url, api_key, state_dir) as client:
        if policy is not None:
            launch["network_policy_id"] = find_policy_id(client, policy)
        body: dict[str, Any] = {"launch_parameters": launch, "environment_variables": _environment(env or [])}
        if name is not None:
            body["name"] = name
        view = client.create_devbox(body)
        if wait:
            view = _await_running(client, view)
    _print_devbox(view, json=json)


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option("--status", help="running, shutdown, …")] = None,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    state_dir: StateDir = None,
) -> None:
    """The account's devboxes, newest first."""
    with connect(url, api_key, state_dir) as client:
        devboxes = list(client.list_devboxes(**({"status": status} if status else {})))
    if json:
        print_json(devboxes)
        return
    rows = [(d["id"], d.get("name"), d["status"], _policy_of(d), render_time(d["create_time_ms"])) for d in devboxes]
    print_table(("id", "name", "status", "policy", "created"), rows)


@app.command("get")
def get(
    devbox: Devbox, *, json: Json = False, url: Url = None, api_key: ApiKey = None, state_dir: StateDir = None
) -> None:
    """One devbox."""
    with connect(url, api_key, state_dir) as client:
        _print_devbox(client.get_devbox(devbox), json=json)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    devbox: Devbox,
    command: Annotated[list[str], typer.Argument(help="One word is given to the shell as it is; several are quoted.")],
    *,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    state_dir: StateDir = None,
) -> None:
    """Run a command in a devbox's login shell. Ends with the command's own exit status."""
    # Options end at the devbox's id, so the customary `--` after it arrives here as a word.
    words = command[1:] if command[0] == "--" else command
    with connect(url, api_key, state_dir) as client:
        execution = client.execute(devbox, words[0] if len(words) == 1 else shlex.join(words))
    if json:
        print_json(execution)
    else:
        sys.stdout.write(execution.get("stdout") or "")
        sys.stderr.write(execution.get("stderr") or "")
        if execution.get("stdout_truncated") or execution.get("stderr_truncated"):
            print_note("only the last lines are shown; redirect the output to a file in the devbox to keep all of it")
    raise typer.Exit(int(execution.get("exit_status") or 0))


@app.command("shutdown")
def shutdown(
    devbox: Devbox,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once nothing of it is left.")] = False,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    state_dir: StateDir = None,
) -> None:
    """End a devbox and all that runs in it."""
    with connect(url, api_key, state_dir) as client:
        view = client.shutdown_devbox(devbox)
        while wait and view["status"] not in _FINAL:
            view = client.wait_for_devbox(devbox, *_FINAL) or view
    if json:
        print_json(view)
    else:
        print_note(f"{view['id']} is {view['status']}")


def _environment(pairs: list[str]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{pair!r}: write --env NAME=VALUE.")
        variables[name] = value
    return variables


def _await_running(client: OutgateClient, view: JsonObject) -> JsonObject:
    devbox_id = str(view["id"])
    with errors.status(f"starting {devbox_id}"):
        while view["status"] not in ("running", *_FINAL):
            view = client.wait_for_devbox(devbox_id, "running", *_FINAL) or view
    if view["status"] != "running":
        why = view.get("failure_reason") or view.get("shutdown_reason") or "no reason was given"
        raise DevboxFailedError(f"{devbox_id} is {view['status']}: {why}.")
    return view


def _policy_of(view: JsonObject) -> str:
    return str((view.get("launch_parameters") or {}).get("network_policy_id") or "")


def _print_devbox(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    print_fields(
        {
            "id": view["id"],
            "name": view.get("name"),
            "status": view["status"],
            "policy": _policy_of(view),
            "created": render_time(view["create_time_ms"]),
            "ended": render_time(view.get("end_time_ms")),
            "failure": view.get("failure_reason"),
            "shutdown": view.get("shutdown_reason"),
        }
    )
