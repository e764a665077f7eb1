"""What commands print of verdicts: why, what an update would change, what was denied lately."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Annotated, Any

import typer

from outgate.cli.flow_lines import render_place
from outgate.cli.output import print_fields, print_json, print_note, print_table, render_time
from outgate.client.public import JsonObject
from outgate.core.denials import gather_denials

Target = Annotated[str, typer.Argument(help="A host name or an address.")]
Port = Annotated[int, typer.Option("--port")]
ProtocolName = Annotated[str, typer.Option("--protocol", help="tcp, udp or icmp.")]
_VERDICTS = {"allow": "allowed", "deny": "denied", "report_only": "only reported"}
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
    """The verdict and how it came to be: the checks in their order, up to the one that decided."""
    if json:
        print_json(said)
        return
    print_fields({key: said[key] for key in ("verdict", "rule", "revision", "reason", "sentence")})
    checks = [(c["enforcement_point"], c["verdict"], c["reason"], c["rule"] or "") for c in said["checks"]]
    print_table(("checked at", "verdict", "reason", "rule"), checks)


def print_simulation(said: JsonObject, *, json: bool) -> None:
    """What an update would have changed."""
    if json:
        print_json(said)
        return
    changes = [*said["opened"], *said["closed"]]
    if changes:
        print_table(_CHANGE_COLUMNS, [_render_change(change) for change in changes])
    remarks = [f"{said['judged_count']} decisions since {render_time(said['since_ms'])} were judged anew"]
    if not changes:
        remarks.append("none would turn out otherwise")
    if said["undecided_count"]:
        remarks.append(f"{said['undecided_count']} were allowed by address alone and cannot be judged")
    if said["partial"]:
        remarks.append("rarer ones were left out")
    print_note("; ".join(remarks) + ". Nothing was changed.")


def _render_change(change: JsonObject) -> tuple[object, ...]:
    place = f"{render_place(change)} {change['protocol'] or 'lookup'}"
    sentence = change["becomes"]["sentence"]
    verdict = _VERDICTS[change["becomes"]["verdict"]]
    return verdict, place, change["count"], change["devbox_count"], render_time(change["time_ms"]), sentence


def print_denials(flows: Iterable[JsonObject], *, json: bool) -> None:
    """What was denied, the most recent last, repeats as one line; each sentence names what to change.

    What differs in nothing but the port is one line, too: one change answers it.
    """
    kinds = gather_denials(flows)
    if json:
        print_json(kinds)
        return
    rows = [
        (
            render_time(kind["time_ms"]),
            kind["count"],
            kind["enforcement_point"],
            _render_target(kind, ports),
            kind["sentence"] or kind["reason"],
        )
        for kind, ports in _merge_ports(kinds)
    ]
    if not rows:
        print_note("Nothing was denied lately.")
        return
    print_table(_DENIAL_COLUMNS, rows)
    policies = " or ".join(dict.fromkeys(str(kind["policy_id"]) for kind in kinds))
    print_note(
        f"`outgate policy update {policies} … --dry-run` shows what a change would let through, and changes nothing."
    )


def _merge_ports(kinds: Iterable[JsonObject]) -> list[tuple[dict[str, Any], list[int]]]:
    """The kinds with all the ports that each sentence was said of; as recent as the latest of them."""
    merged: dict[tuple[object, ...], tuple[dict[str, Any], list[int]]] = {}
    for kind in kinds:
        key = tuple(
            kind[name] for name in ("enforcement_point", "hostname", "address", "protocol", "reason", "sentence")
        )
        known, ports = merged.pop(key, (None, []))
        count = kind["count"] + (0 if known is None else known["count"])
        merged[key] = {**kind, "count": count}, sorted({*ports, *([kind["port"]] if kind["port"] else [])})
    return list(merged.values())


def _render_target(kind: JsonObject, ports: list[int]) -> str:
    place = render_place({**kind, "port": ",".join(map(str, ports))})
    return f"{place} {kind['protocol'] or ''}".strip()
