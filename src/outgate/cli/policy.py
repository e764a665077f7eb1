"""``outgate policy``: network policies, over the public API."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from outgate.cli.explanations import (
    Port,
    ProtocolName,
    Target,
    explain_body,
    print_explanation,
    print_simulation,
)
from outgate.cli.output import print_fields, print_json, print_line, print_note, print_table, render_time
from outgate.cli.policy_options import (
    find_policy_id,
    read_policy_file,
    summarise_policy,
)
from outgate.cli.server_options import Server, with_server
from outgate.cli.suggestions import apply_suggestions, print_suggestions
from outgate.client.public import JsonObject
from outgate.core.cidr_lines import parse_cidr_line, render_cidr_line
from outgate.model.policy import EGRESS_FLAGS

app = typer.Typer(no_args_is_help=True, help="What devboxes may reach.")

Revision = Annotated[int, typer.Argument(min=1, help="A number out of `outgate policy history`.")]
Reference = Annotated[str, typer.Argument(metavar="POLICY", help="An id, or a name.")]
Hosts = Annotated[
    list[str] | None, typer.Option("--allow-host", metavar="NAME", help="example.com or *.example.com; repeat it.")
]
Cidrs = Annotated[
    list[str] | None,
    typer.Option("--allow-cidr", metavar="CIDR[:PORTS]", help="10.0.0.0/8 or 10.0.0.0/8:443/tcp,53; repeat it."),
]
AllowAll = Annotated[bool | None, typer.Option("--allow-all/--no-allow-all", help="DANGER: everything may leave.")]
DevboxToDevbox = Annotated[bool | None, typer.Option("--allow-devbox-to-devbox/--no-devbox-to-devbox")]
AgentGateway = Annotated[bool | None, typer.Option("--allow-agent-gateway/--no-agent-gateway")]
McpGateway = Annotated[bool | None, typer.Option("--allow-mcp-gateway/--no-mcp-gateway")]
Mirrors = Annotated[bool | None, typer.Option("--allow-runloop-mirrors/--no-runloop-mirrors")]
ReportOnly = Annotated[
    bool | None,
    typer.Option("--report-only/--enforce", help="DANGER: what no rule allows passes, and is only reported."),
]
Description = Annotated[str | None, typer.Option("--description", help="For people.")]
File = Annotated[
    Path | None, typer.Option("--file", help="A JSON body as the API takes it; options win over what it says.")
]


@app.command("create")
@with_server
def create(
    server: Server,
    name: Annotated[str, typer.Argument()],
    *,
    allow_host: Hosts = None,
    allow_cidr: Cidrs = None,
    allow_all: AllowAll = None,
    devbox_to_devbox: DevboxToDevbox = None,
    agent_gateway: AgentGateway = None,
    mcp_gateway: McpGateway = None,
    mirrors: Mirrors = None,
    report_only: ReportOnly = None,
    description: Description = None,
    file: File = None,
) -> None:
    """Make a policy. Without any --allow… nothing leaves."""
    flags = _flags(allow_all, devbox_to_devbox, agent_gateway, mcp_gateway, mirrors)
    body = {**_body(file, allow_host or None, allow_cidr or None, flags, description), "name": name}
    body.update(_enforcement(report_only))
    with server.connect() as client:
        _print_policy(client.create_policy(body), json=server.json)


@app.command("update")
@with_server
def update(
    server: Server,
    policy: Reference,
    *,
    allow_host: Hosts = None,
    allow_cidr: Cidrs = None,
    no_hosts: Annotated[bool, typer.Option("--no-hosts", help="Empty the list of host names.")] = False,
    no_cidrs: Annotated[bool, typer.Option("--no-cidrs", help="Empty the list of networks.")] = False,
    allow_all: AllowAll = None,
    devbox_to_devbox: DevboxToDevbox = None,
    agent_gateway: AgentGateway = None,
    mcp_gateway: McpGateway = None,
    mirrors: Mirrors = None,
    report_only: ReportOnly = None,
    name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    description: Description = None,
    file: File = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what it would have changed lately.")
    ] = False,
    hours: Annotated[int, typer.Option("--hours", min=1, help="How far back --dry-run looks.")] = 24,
) -> None:
    """Change a policy: what is given replaces what was there, the rest stays. In force when this returns."""
    if (no_hosts and allow_host) or (no_cidrs and allow_cidr):
        raise typer.BadParameter("A list cannot be emptied and filled at once; leave out --no-hosts or --no-cidrs.")
    hosts = [] if no_hosts else (allow_host or None)
    cidrs = [] if no_cidrs else (allow_cidr or None)
    flags = _flags(allow_all, devbox_to_devbox, agent_gateway, mcp_gateway, mirrors)
    body = _body(file, hosts, cidrs, flags, description) | _enforcement(report_only)
    if name is not None:
        body["name"] = name
    with server.connect() as client:
        policy_id = find_policy_id(client, policy)
        if dry_run:
            print_simulation(client.simulate_policy(policy_id, body | {"hours": hours}), json=server.json)
        else:
            _print_policy(client.update_policy(policy_id, body), json=server.json)


@app.command("list")
@with_server
def list_(
    server: Server,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Only those whose name holds this.")] = None,
) -> None:
    """The account's policies, newest first."""
    with server.connect() as client:
        policies = list(client.list_policies(**({"name": name} if name else {})))
    if server.json:
        print_json(policies)
        return
    columns = ("id", "name", "lets out", "updated")
    rows = [(p["id"], p["name"], summarise_policy(p), render_time(p["update_time_ms"])) for p in policies]
    print_table(columns, rows)


@app.command("get")
@with_server
def get(server: Server, policy: Reference) -> None:
    """One policy, with every rule."""
    with server.connect() as client:
        _print_policy(client.get_policy(find_policy_id(client, policy)), json=server.json)


@app.command("delete")
@with_server
def delete(server: Server, policy: Reference) -> None:
    """Delete a policy that nothing uses."""
    with server.connect() as client:
        view = client.delete_policy(find_policy_id(client, policy))
    server.note(view, f"deleted {view['id']} ({view['name']})")


@app.command("explain")
@with_server
def explain(
    server: Server,
    policy: Reference,
    target: Target,
    *,
    port: Port = 443,
    protocol: ProtocolName = "tcp",
    devbox: Annotated[str | None, typer.Option("--devbox", help="Only if this devbox is under the policy.")] = None,
) -> None:
    """Whether a flow would be let out, by which rule, and why."""
    body = explain_body(target, port, protocol)
    if devbox is not None:
        body["devbox_id"] = devbox
    with server.connect() as client:
        print_explanation(client.explain_policy(find_policy_id(client, policy), body), json=server.json)


@app.command("suggest")
@with_server
def suggest(
    server: Server,
    policy: Reference,
    *,
    hours: Annotated[int, typer.Option("--hours", min=1, help="How far back to look.")] = 24,
    devbox: Annotated[list[str] | None, typer.Option("--devbox", help="Only what this one did; repeat it.")] = None,
    allowed_only: Annotated[bool, typer.Option("--without-denied", help="Not what was denied.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Add what the policy lacks; shows what that changes, and asks.")
    ] = False,
) -> None:
    """The shortest allow list that covers what the policy's devboxes did, and what of the policy nothing used."""
    if apply and server.json:
        raise typer.BadParameter("--apply asks, and --json is for programs; choose one.")
    body = {"hours": hours, "devbox_ids": devbox or [], "include_denied": not allowed_only}
    with server.connect() as client:
        policy_id = find_policy_id(client, policy)
        said = client.suggest_policy(policy_id, body)
        if server.json:
            print_json(said)
            return
        print_suggestions(said)
        updated = apply_suggestions(client, policy_id, said, hours=hours) if apply else None
    if updated is not None:
        _print_policy(updated, json=False)


@app.command("history")
@with_server
def history(
    server: Server,
    policy: Reference,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="The latest so many.")] = 20,
) -> None:
    """The versions of a policy, newest first: when, by which key, and what each lets out."""
    with server.connect() as client:
        revisions = client.list_revisions(find_policy_id(client, policy), limit=limit)
    if server.json:
        print_json(revisions)
        return
    rows = [(r["revision"], render_time(r["time_ms"]), r["key_id"], summarise_policy(r)) for r in revisions]
    print_table(("revision", "time", "key", "lets out"), rows)


@app.command("diff")
@with_server
def diff(
    server: Server,
    policy: Reference,
    revision: Revision,
    *,
    against: Annotated[int | None, typer.Option("--against", min=1, help="\\[default: the one before]")] = None,
) -> None:
    """What one version of a policy says otherwise than another."""
    with server.connect() as client:
        found = client.diff_revisions(find_policy_id(client, policy), revision, against)
    if server.json:
        print_json(found)
        return
    if found.get("enforcement"):
        print_line(f"+ enforcement {found['enforcement']}")
    for flag, value in found["flags"].items():
        print_line(f"{'+' if value else '-'} {flag}")
    for sign, hosts, cidrs in (("-", "hostnames_removed", "cidrs_removed"), ("+", "hostnames_added", "cidrs_added")):
        for entry in (*found[hosts], *(render_cidr_line(rule) for rule in found[cidrs])):
            print_line(f"{sign} {entry}")


@app.command("restore")
@with_server
def restore(server: Server, policy: Reference, revision: Revision) -> None:
    """Go back to the rules of a version, as a new one. In force when this returns."""
    with server.connect() as client:
        _print_policy(client.restore_policy(find_policy_id(client, policy), revision), json=server.json)


def _flags(*given: bool | None) -> dict[str, bool]:
    return {field: value for field, value in zip(EGRESS_FLAGS, given, strict=True) if value is not None}


def _enforcement(report_only: bool | None) -> dict[str, object]:
    return {} if report_only is None else {"enforcement": "report_only" if report_only else "enforce"}


def _body(
    file: Path | None,
    hosts: Sequence[str] | None,
    cidrs: Sequence[str] | None,
    flags: Mapping[str, bool],
    description: str | None,
) -> dict[str, object]:
    body = read_policy_file(file) if file is not None else {}
    body.update(flags)
    if hosts is not None:
        body["allowed_hostnames"] = list(hosts)
    if cidrs is not None:
        body["allowed_cidrs"] = [parse_cidr_line(cidr) for cidr in cidrs]
    if description is not None:
        body["description"] = description
    return body


def _print_policy(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    egress = view["egress"]
    print_fields(
        {
            "id": view["id"],
            "name": view["name"],
            "description": view.get("description"),
            "lets out": summarise_policy(view),
            "hosts": " ".join(egress["allowed_hostnames"]),
            "networks": " ".join(render_cidr_line(rule) for rule in egress["allowed_cidrs"]),
            "updated": render_time(view["update_time_ms"]),
        }
    )
    for warning in view.get("warnings", ()):
        print_note(f"warning: {warning['text']}")
