"""What ``outgate policy suggest`` prints and asks."""

from collections.abc import Mapping
from typing import Any

import typer

from outgate.cli.explanations import print_simulation
from outgate.cli.output import print_line, print_note, print_table, render_time
from outgate.client.public import JsonObject, OutgateClient
from outgate.core.cidr_lines import render_cidr_line

_COLUMNS = ("", "entry", "seen", "denied", "reported", "devboxes", "last", "for example")
_LEFT_OUT_COLUMNS = ("left out", "why", "seen", "last")


def print_suggestions(said: JsonObject) -> None:
    """The list with its evidence: ``+`` is what the policy lacks, ``=`` what it has."""
    rows = [_render(one, one["hostname"]) for one in said["allowed_hostnames"]]
    rows += [_render(one, render_cidr_line(one["cidr"])) for one in said["allowed_cidrs"]]
    if rows:
        print_table(_COLUMNS, rows)
    if said["left_out"]:
        left_out = [
            (one["what"], one["reason"], one["evidence"]["count"], render_time(one["evidence"]["last_ms"]))
            for one in said["left_out"]
        ]
        print_table(_LEFT_OUT_COLUMNS, left_out)
    for unused in said["unused"]:
        print_line(f"unused: {unused['field']}[{unused['index']}] {unused['entry']}")
    warnings = [*said["warnings"], *(warning for one in said["allowed_hostnames"] for warning in one["warnings"])]
    for text in dict.fromkeys(warning["text"] for warning in warnings):
        print_note(f"warning: {text}")
    print_note(_remark(said, is_empty=not rows))


def _render(one: Mapping[str, Any], entry: str) -> tuple[object, ...]:
    evidence = one["evidence"]
    return (
        "=" if one["is_covered"] else "+",
        entry,
        evidence["count"],
        evidence["denied_count"],
        evidence["reported_count"],
        len(evidence["devbox_ids"]),
        render_time(evidence["last_ms"]),
        ", ".join(evidence["examples"][:2]),
    )


def _remark(said: JsonObject, *, is_empty: bool) -> str:
    remarks = [f"{said['judged_count']} decisions since {render_time(said['since_ms'])} were looked at"]
    if is_empty:
        remarks.append("none asks for an entry")
    if said["partial"]:
        remarks.append("rarer ones were left out")
    return "; ".join(remarks) + ". Nothing was changed."


def apply_suggestions(client: OutgateClient, policy_id: str, said: JsonObject, *, hours: int) -> JsonObject | None:
    """Give the policy what it lacks, once the person at the terminal has seen what that changes; its view, or None."""
    added = [one for key in ("allowed_hostnames", "allowed_cidrs") for one in said[key] if not one["is_covered"]]
    if not added:
        print_note("The policy lacks nothing.")
        return None
    body = dict(said["proposed"])
    print_simulation(client.simulate_policy(policy_id, {**body, "hours": hours}), json=False)
    if not typer.confirm(f"Add {len(added)} {'entry' if len(added) == 1 else 'entries'} to the policy?", err=True):
        return None
    return client.update_policy(policy_id, body)
