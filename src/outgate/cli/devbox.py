"""``outgate devbox``: sandboxes, over the public API."""

import shlex
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from outgate.cli.devbox_states import FINAL, await_status, find_policy, policy_of, print_devbox
from outgate.cli.explanations import (
    Port,
    ProtocolName,
    Target,
    explain_body,
    print_denials,
    print_explanation,
)
from outgate.cli.output import print_json, print_note, print_table, render_time
from outgate.cli.pairs import parse_pairs
from outgate.cli.policy_options import find_policy_id
from outgate.cli.server_options import Server, with_server

app = typer.Typer(no_args_is_help=True, help="Sandboxes whose traffic obeys a policy.")

_BLUEPRINT_PREFIX = "bpt_"

Devbox = Annotated[str, typer.Argument(metavar="DEVBOX", help="Its id.")]


class TunnelMode(StrEnum):
    """Who may come in through a devbox's tunnel."""

    OPEN = "open"
    AUTHENTICATED = "authenticated"


@app.command("create")
@with_server
def create(
    server: Server,
    *,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="An id or a name; else its blueprint's or snapshot's, or the server's."),
    ] = None,
    blueprint: Annotated[
        str | None, typer.Option("--blueprint", metavar="BLUEPRINT", help="Start from this one: an id or a name.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="SNAPSHOT", help="Start from this disk, by its id.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Repeat it.")] = None,
    keep_alive_s: Annotated[int | None, typer.Option("--keep-alive", metavar="SECONDS", min=1)] = None,
    root: Annotated[bool, typer.Option("--root", help="Run as root instead of `user`.")] = False,
    tunnel: Annotated[
        TunnelMode | None, typer.Option("--tunnel", help="Lead callers from outside to its servers.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once it runs.")] = True,
) -> None:
    """Start a devbox. Its policy holds from before its first process."""
    if blueprint is not None and snapshot is not None:
        raise typer.BadParameter("A devbox starts from one disk; leave out --blueprint or --snapshot.")
    launch: dict[str, Any] = {}
    if keep_alive_s is not None:
        launch["keep_alive_time_seconds"] = keep_alive_s
    if root:
        launch["user_parameters"] = {"username": "root", "uid": 0}
    body: dict[str, Any] = {"launch_parameters": launch, "environment_variables": parse_pairs(env, "--env")}
    if blueprint is not None:
        body["blueprint_id" if blueprint.startswith(_BLUEPRINT_PREFIX) else "blueprint_name"] = blueprint
    if snapshot is not None:
        body["snapshot_id"] = snapshot
    if name is not None:
        body["name"] = name
    if tunnel is not None:
        body["tunnel"] = {"auth_mode": tunnel.value}
    with server.connect() as client:
        if policy is not None:
            launch["network_policy_id"] = find_policy_id(client, policy)
        view = client.create_devbox(body)
        if wait:
            view = await_status(client, view, "running", doing="starting")
    print_devbox(view, json=server.json)


@app.command("list")
@with_server
def list_(
    server: Server,
    *,
    status: Annotated[str | None, typer.Option("--status", help="running, shutdown, …")] = None,
) -> None:
    """The account's devboxes, newest first."""
    with server.connect() as client:
        devboxes = list(client.list_devboxes(**({"status": status} if status else {})))
    if server.json:
        print_json(devboxes)
        return
    rows = [(d["id"], d.get("name"), d["status"], policy_of(d), render_time(d["create_time_ms"])) for d in devboxes]
    print_table(("id", "name", "status", "policy", "created"), rows)


@app.command("get")
@with_server
def get(server: Server, devbox: Devbox) -> None:
    """One devbox."""
    with server.connect() as client:
        view = client.get_devbox(devbox)
        print_devbox(view, json=server.json, policy=None if server.json else find_policy(client, view))


@app.command("exec", context_settings={"allow_interspersed_args": False})
@with_server
def exec_(
    server: Server,
    devbox: Devbox,
    command: Annotated[list[str], typer.Argument(help="One word is given to the shell as it is; several are quoted.")],
) -> None:
    """Run a command in a devbox's login shell. Ends with the command's own exit status."""
    # Options end at the devbox's id, so the customary `--` after it arrives here as a word.
    words = command[1:] if command[0] == "--" else command
    with server.connect() as client:
        execution = client.execute(devbox, words[0] if len(words) == 1 else shlex.join(words))
    if server.json:
        print_json(execution)
    else:
        sys.stdout.write(execution.get("stdout") or "")
        sys.stderr.write(execution.get("stderr") or "")
        if execution.get("stdout_truncated") or execution.get("stderr_truncated"):
            print_note("only the last lines are shown; redirect the output to a file in the devbox to keep all of it")
    raise typer.Exit(int(execution.get("exit_status") or 0))


@app.command("suspend")
@with_server
def suspend(
    server: Server,
    devbox: Devbox,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once nothing of it runs.")] = True,
) -> None:
    """End a devbox's processes and its network, and keep its disk."""
    with server.connect() as client:
        view = client.suspend_devbox(devbox)
        if wait:
            view = await_status(client, view, "suspended", doing="suspending")
    server.note(view, f"{view['id']} is {view['status']}")


@app.command("resume")
@with_server
def resume(
    server: Server,
    devbox: Devbox,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once it runs.")] = True,
) -> None:
    """Start a suspended devbox again on its disk, under its policy as it is now."""
    with server.connect() as client:
        view = client.resume_devbox(devbox)
        if wait:
            view = await_status(client, view, "running", doing="resuming")
    server.note(view, f"{view['id']} is {view['status']}")


@app.command("shutdown")
@with_server
def shutdown(
    server: Server,
    devbox: Devbox,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once nothing of it is left.")] = False,
) -> None:
    """End a devbox and all that runs in it."""
    with server.connect() as client:
        view = client.shutdown_devbox(devbox)
        while wait and view["status"] not in FINAL:
            view = client.wait_for_devbox(devbox, *FINAL) or view
    server.note(view, f"{view['id']} is {view['status']}")


@app.command("explain")
@with_server
def explain(
    server: Server, devbox: Devbox, target: Target, *, port: Port = 443, protocol: ProtocolName = "tcp"
) -> None:
    """Whether a flow of the devbox would be let out, by which rule, and why."""
    with server.connect() as client:
        print_explanation(client.explain_devbox(devbox, explain_body(target, port, protocol)), json=server.json)


@app.command("why")
@with_server
def why(
    server: Server,
    devbox: Devbox,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="Look at the latest so many denials.")] = 200,
) -> None:
    """What the devbox was denied lately, and what to change where that is not wanted."""
    with server.connect() as client:
        page = client.list_flows(devbox_id=devbox, verdict="deny", limit=str(limit))
    print_denials(page["network_flows"], json=server.json)
