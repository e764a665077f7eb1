"""Waiting until a devbox is what a command promised, and saying what it is."""

from typing import Final

from outgate.cli.output import errors, print_fields, print_json, render_time
from outgate.cli.policy_options import summarise_policy
from outgate.client.public import JsonObject, OutgateClient
from outgate.client.transport import PeerRefusedError
from outgate.errors import OutgateError

FINAL: Final = ("failure", "shutdown")
"""The statuses that no devbox leaves."""


class DevboxFailedError(OutgateError):
    """The devbox ended instead."""

    code = "devbox_failed"


def await_status(client: OutgateClient, view: JsonObject, status: str, *, doing: str) -> JsonObject:
    """The view once the devbox is ``status``. Raises DevboxFailedError when it ends in another way."""
    devbox_id = str(view["id"])
    with errors.status(f"{doing} {devbox_id}"):
        while view["status"] not in (status, *FINAL):
            view = client.wait_for_devbox(devbox_id, status, *FINAL) or view
    if view["status"] != status:
        why = view.get("failure_reason") or view.get("shutdown_reason") or "no reason was given"
        raise DevboxFailedError(f"{devbox_id} is {view['status']}: {why}.")
    return view


def policy_of(view: JsonObject) -> str:
    """The id of the devbox's policy; an empty text for the server's own."""
    return str((view.get("launch_parameters") or {}).get("network_policy_id") or "")


def find_policy(client: OutgateClient, view: JsonObject) -> JsonObject | None:
    """The view of the devbox's policy; None when it is the server's own, or gone."""
    policy_id = policy_of(view)
    try:
        return client.get_policy(policy_id) if policy_id else None
    except PeerRefusedError:
        return None


def print_devbox(view: JsonObject, *, json: bool, policy: JsonObject | None = None) -> None:
    """All of a devbox that people look at, with what its policy lets out if that is given; or everything as JSON."""
    if json:
        print_json(view)
        return
    tunnel = view.get("tunnel") or {}
    print_fields(
        {
            "id": view["id"],
            "name": view.get("name"),
            "status": view["status"],
            "policy": policy_of(view),
            "lets out": "" if policy is None else summarise_policy(policy),
            "blueprint": view.get("blueprint_id"),
            "snapshot": view.get("snapshot_id"),
            "tunnel": tunnel.get("tunnel_key"),
            "tunnel token": tunnel.get("auth_token"),
            "created": render_time(view["create_time_ms"]),
            "ended": render_time(view.get("end_time_ms")),
            "failure": view.get("failure_reason"),
            "shutdown": view.get("shutdown_reason"),
        }
    )
