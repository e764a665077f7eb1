"""``outgate webhook``: where to be told of denials and warnings, over the public API."""

import time
from typing import Annotated, Any

import typer

from outgate.cli.output import print_fields, print_json, print_line, print_note, print_table, render_time
from outgate.cli.policy_options import find_policy_id
from outgate.cli.server_options import Server, with_server
from outgate.client.public import JsonObject, OutgateClient
from outgate.clock import monotonic_s

app = typer.Typer(no_args_is_help=True, help="Webhooks: be told of denials and warnings.")

_TEST_S_MAX = 20.0
"""A try takes ten seconds at most, and begins within one."""
_LOOK_EVERY_S = 0.2
_EXIT_FAILED = 1
_DELIVERY_COLUMNS = ("id", "event", "state", "tries", "code", "created", "next try", "error")

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="flow.denied, flow.reported, host.warning or policy.updated. Repeat it."),
]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="Only what this policy did: an id or a name. Repeat it.")
]
Devboxes = Annotated[list[str] | None, typer.Option("--devbox", help="Only what this devbox tried. Repeat it.")]
Description = Annotated[str | None, typer.Option("--description")]


@app.command("create")
@with_server
def create(
    server: Server,
    receiver: Annotated[str, typer.Argument(metavar="URL", help="Where to deliver; https.")],
    *,
    event: Events = None,
    policy: Policies = None,
    devbox: Devboxes = None,
    description: Description = None,
) -> None:
    """Make a webhook. Its secret is printed once. Without --event: flow.denied and host.warning."""
    with server.connect() as client:
        body = {"url": receiver, "events": event or ["flow.denied", "host.warning"]}
        view = client.create_webhook(body | _body(client, policy, devbox, description))
    _print_secret(view, json=server.json)


@app.command("list")
@with_server
def list_(server: Server) -> None:
    """The account's webhooks, newest first."""
    with server.connect() as client:
        webhooks = list(client.list_webhooks())
    if server.json:
        print_json(webhooks)
        return
    rows = [(w["id"], w["url"], ",".join(w["events"]), w["status"], w["problem"]) for w in webhooks]
    print_table(("id", "url", "events", "status", "problem"), rows)


@app.command("get")
@with_server
def get(server: Server, webhook: Webhook) -> None:
    """One webhook."""
    with server.connect() as client:
        _print(client.get_webhook(webhook), json=server.json)


@app.command("update")
@with_server
def update(
    server: Server,
    webhook: Webhook,
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Deliver there from now on.")] = None,
    event: Events = None,
    policy: Policies = None,
    devbox: Devboxes = None,
    description: Description = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Switch it on again, or off.")] = None,
) -> None:
    """Change what is given. Lists replace the old ones: --policy '' means all policies again."""
    with server.connect() as client:
        body = _body(client, policy, devbox, description)
        body |= {
            name: value for name, value in (("url", to), ("events", event), ("enabled", enabled)) if value is not None
        }
        _print(client.update_webhook(webhook, body), json=server.json)


@app.command("delete")
@with_server
def delete(server: Server, webhook: Webhook) -> None:
    """Delete a webhook and what waits for it."""
    with server.connect() as client:
        view = client.delete_webhook(webhook)
    server.note(view, f"deleted {view['id']}")


@app.command("rotate")
@with_server
def rotate(
    server: Server,
    webhook: Webhook,
    *,
    overlap_s: Annotated[
        int | None,
        typer.Option(
            "--overlap", metavar="SECONDS", min=0, help="The old one signs, too, for so long. \\[default: a day]"
        ),
    ] = None,
) -> None:
    """Give a webhook a new secret, which is printed once."""
    with server.connect() as client:
        _print_secret(client.rotate_webhook_secret(webhook, overlap_s), json=server.json)


@app.command("test")
@with_server
def test(server: Server, webhook: Webhook) -> None:
    """Send a delivery and say how it ended."""
    with server.connect() as client:
        delivery = _await_end(client, client.try_webhook(webhook))
    if server.json:
        print_json(delivery)
    elif delivery["state"] == "delivered":
        print_note(f"delivered: answered {delivery['response_code']}")
    else:
        print_note(f"{delivery['state']}: {delivery['error'] or 'still on its way'}")
    if delivery["state"] != "delivered":
        raise typer.Exit(_EXIT_FAILED)


@app.command("deliveries")
@with_server
def deliveries(
    server: Server,
    webhook: Webhook,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="The latest so many.")] = 20,
) -> None:
    """What was delivered, and what waits, newest first."""
    with server.connect() as client:
        found = client.list_webhook_deliveries(webhook, limit=limit)
    if server.json:
        print_json(found)
        return
    print_table(_DELIVERY_COLUMNS, [_render_delivery(delivery) for delivery in found])


def _body(
    client: OutgateClient, policies: list[str] | None, devboxes: list[str] | None, description: str | None
) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if policies is not None:
        body["policy_ids"] = [find_policy_id(client, policy) for policy in policies if policy]
    if devboxes is not None:
        body["devbox_ids"] = [devbox for devbox in devboxes if devbox]
    if description is not None:
        body["description"] = description
    return body


def _await_end(client: OutgateClient, delivery: JsonObject) -> JsonObject:
    """The delivery once it has ended, or as it is after :data:`_TEST_S_MAX`."""
    deadline_s = monotonic_s() + _TEST_S_MAX
    while delivery["state"] == "pending" and monotonic_s() < deadline_s:
        time.sleep(_LOOK_EVERY_S)
        found = client.list_webhook_deliveries(delivery["webhook_id"], limit=100)
        delivery = next((one for one in found if one["id"] == delivery["id"]), delivery)
    return delivery


def _print_secret(view: JsonObject, *, json: bool) -> None:
    _print(view, json=json)
    if not json:
        # On standard output, where the id is, too: programs keep both.
        print_line(f"secret: {view['secret']}")
        print_note("This is the only time that the secret is shown.")


def _print(view: JsonObject, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    print_fields(
        {
            "id": view["id"],
            "url": view["url"],
            "description": view["description"],
            "events": ", ".join(view["events"]),
            "policies": ", ".join(view["policy_ids"]),
            "devboxes": ", ".join(view["devbox_ids"]),
            "status": view["status"],
            "problem": view["problem"],
            "failing since": render_time(view["failing_since_ms"]),
            "created": render_time(view["create_time_ms"]),
        }
    )


def _render_delivery(delivery: JsonObject) -> tuple[object, ...]:
    return (
        delivery["id"],
        delivery["event"],
        delivery["state"],
        delivery["tries"],
        delivery["response_code"],
        render_time(delivery["create_time_ms"]),
        render_time(delivery["next_try_ms"]),
        delivery["error"],
    )
