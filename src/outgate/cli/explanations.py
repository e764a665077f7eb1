"""What commands print of verdicts: why, what an update would change, what was denied lately."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Annotated, Any

import typer

from outgate.cli.flows import render_place
from outgate.cli.output import print_fields, print_json, print_note, print_table, render_time
from outgate.client.public import JsonObject

Target = Annotated[str, typer.Argument(help="A host name or an address.")]
Port = Annotated[int, typer.Option("--port")]
ProtocolName = Annotated[str, typer.Option("--protocol", help="tcp, udp or icmp.")]
_CHANGE_COLUMNS = ("would be", "to", "tries", "devboxes", "last", "why")
_DENIAL_COLUMNS = ("last", "tries", "at", "to", "why")


def explain_body(target: str, port: int, protocol: str) -> dict[str, Any]:
    """The question whether something may leave, as the API takes it."""
    try:
        ip_address(target)
    except ValueError:
        return {"hostname": target, "port": port, "protocol": protocol}
    return {"address": target, "port": port, "protocol": protocol}


def print_explanation(said: JsonObject, *, json: bool) -> None:
    """The verdict and how it came to be."""
    if json:
        print_json(said)
        return
    print_fields({key: said[key] for key in ("verdict", "rule", "reason", "sentence")})
    checks = [(c["enforcement_point"], c["verdict"], c["reason"], c["rule"] or "") for c in said["checks"]]
    # A single one is the verdict itself.
    if len(checks) > 1:
        print_table(("checked at", "verdict", "reason", "rule"), checks)


def print_simulation(said: JsonObject, *, json: bool) -> None:
    """What an update would have changed."""
    if json:
        print_json(said)
        return
    changes = [("allowed", change) for change in said["opened"]] + [("denied", change) for change in said["closed"]]
    if changes:
        print_table(_CHANGE_COLUMNS, [_render_change(verdict, change) for verdict, change in changes])
    remarks = [f"{said['judged_count']} decisions since {render_time(said['since_ms'])} were judged anew"]
    if not changes:
        remarks.append("none would turn out otherwise")
    if said["undecided_count"]:
        remarks.append(f"{said['undecided_count']} were allowed by address alone and cannot be judged")
    if said["partial"]:
        remarks.append("rarer ones were left out")
    print_note("; ".join(remarks) + ". Nothing was changed.")


def _render_change(verdict: str, change: JsonObject) -> tuple[object, ...]:
    place = f"{render_place(change)} {change['protocol'] or 'lookup'}"
    sentence = change["becomes"]["sentence"]
    return verdict, place, change["count"], change["devbox_count"], render_time(change["time_ms"]), sentence


def print_denials(flows: Iterable[JsonObject], *, json: bool) -> None:
    """What was denied, the most recent last, repeats as one line; each sentence names what to change."""
    kinds = gather_denials(flows)
    if json:
        print_json(kinds)
        return
    rows = [
        (
            render_time(kind["time_ms"]),
            kind["count"],
            kind["enforcement_point"],
            f"{render_place(kind)} {kind['protocol'] or ''}".strip(),
            kind["sentence"] or kind["reason"],
        )
        for kind in kinds
    ]
    if rows:
        print_table(_DENIAL_COLUMNS, rows)
    else:
        print_note("Nothing was denied lately.")


def gather_denials(flows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each kind of denial out of ``flows`` (newest first): the newest record, and how many there were."""
    kinds: dict[tuple[object, ...], dict[str, Any]] = {}
    for flow in flows:
        key = tuple(flow[name] for name in ("enforcement_point", "hostname", "address", "port", "protocol", "reason"))
        known = kinds.setdefault(key, {**flow, "count": 0})
        known["count"] += flow["count"]
    return list(reversed(kinds.values()))
