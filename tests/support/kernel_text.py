"""What the router namespace of an instance holds, as text that does not depend on how it came about."""

import subprocess

from outgate.dataplane import netns
from outgate.dataplane.layout import NetworkLayout

DYNAMIC_SETS = ("flows", "denied", "denied_logged", "redirected4", "redirected6")


def observe_text(layout: NetworkLayout, *, without: tuple[str, ...] = ()) -> list[str]:
    """The table as nft lists it, set by set and chain by chain, sorted; ``without`` the elements of some sets."""
    text = _run(layout, "nft", "-n", "-n", "-s", "list", "table", "inet", "outgate")
    blocks = (block.removeprefix("table inet outgate {\n").rstrip("}\n ") for block in text.split("\n\n"))
    return sorted(
        (block.partition("elements = {")[0] if block.split()[1] in without else _sort_elements(block)).rstrip()
        for block in blocks
    )


def observe_everything(layout: NetworkLayout) -> list[str]:
    """The table without what packets fill in, and all links, addresses, routes, rules, neighbours and namespaces."""
    return [
        *observe_text(layout, without=DYNAMIC_SETS),
        *sorted(_run(layout, "ip", "-o", "-br", "link").splitlines()),
        *sorted(_run(layout, "ip", "-o", "-br", "address").splitlines()),
        *sorted(_run(layout, "ip", "route", "show", "table", "all").splitlines()),
        *sorted(_run(layout, "ip", "-6", "route", "show", "table", "all").splitlines()),
        *sorted(_run(layout, "ip", "rule").splitlines()),
        *sorted(_run(layout, "ip", "neigh", "show", "nud", "permanent").splitlines()),
        *netns.list_namespaces(layout.router_namespace),
    ]


def _run(layout: NetworkLayout, *command: str) -> str:
    with netns.entered(layout.router_namespace):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _sort_elements(block: str) -> str:
    head, found, tail = block.partition("elements = {")
    if not found:
        return block
    elements = sorted(item.strip() for item in tail.rstrip("}\n\t ").split(","))
    return f"{head}{found} {', '.join(elements)}"
