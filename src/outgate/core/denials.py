"""Denials told once for each kind."""

from collections.abc import Iterable, Mapping
from typing import Any


def gather_denials(flows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each kind of denial out of ``flows`` (views, newest first): the newest, and how many there were.

    The kind that was seen last comes last.
    """
    kinds: dict[tuple[object, ...], dict[str, Any]] = {}
    for flow in flows:
        key = tuple(flow[name] for name in ("enforcement_point", "hostname", "address", "port", "protocol", "reason"))
        known = kinds.setdefault(key, {**flow, "count": 0})
        known["count"] += flow["count"]
    return list(reversed(kinds.values()))
