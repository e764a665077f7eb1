"""What a policy does, in sentences for people. What a single verdict says is in :mod:`outgate.core.sentences`."""

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from outgate.core.cidr_lines import render_ports
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.policy import EnforcementMode

SHOWN_MAX: Final = 6
"""Names and networks of a sentence; the rest is counted."""

_GATEWAYS: Final = (
    ("allow_agent_gateway", "the agent gateway"),
    ("allow_mcp_gateway", "the MCP gateway"),
    ("allow_runloop_mirrors", "the package mirrors"),
)


def describe_policy(document: PolicyDocument) -> tuple[str, ...]:
    """The effect of a policy, most important first: never empty."""
    is_report_only = document.enforcement == EnforcementMode.REPORT_ONLY
    sentences = [_REPORTING] if is_report_only else []
    if document.allow_all:
        return (*sentences, _ALL)
    opened = [*_describe_names(document.allowed_hostnames), *_describe_networks(document), *_describe_flags(document)]
    if not opened:
        return (*sentences, "No rule allows anything." if is_report_only else _NOTHING)
    return (*sentences, *opened, *(() if is_report_only else ("Everything else is denied.",)))


_REPORTING: Final = (
    "Report only: what no rule allows is let through all the same, and recorded. Special addresses stay closed."
)
_NOTHING: Final = "Nothing is allowed: lookups and connections are denied at once, with the reason."
_ALL: Final = (
    "Everything is allowed, private networks included. Only what no policy opens stays closed: "
    "cloud metadata, loopback, link-local and the host's own addresses."
)


def _describe_names(patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return []
    count = len(patterns)
    what = f"TCP to {'a host' if count == 1 else f'{count:,} hosts'} by name: {_enumerate(patterns)}."
    wildcard = next((pattern for pattern in patterns if pattern.startswith("*.")), None)
    if wildcard is not None:
        what += f" {wildcard} covers every name below {wildcard[2:]}, at any depth, and not {wildcard[2:]} itself."
    return [what]


def _describe_networks(document: PolicyDocument) -> list[str]:
    rules = [_describe_rule(rule) for rule in document.allowed_cidrs]
    return [f"By address: {_enumerate(rules)}."] if rules else []


def _describe_rule(rule: CidrDocument) -> str:
    if not rule.ports:
        return f"{rule.cidr} (every port and protocol)"
    ports = [structs.asdict(ports) for ports in rule.ports]
    return f"{rule.cidr} ({render_ports(ports)})"


def _describe_flags(document: PolicyDocument) -> list[str]:
    sentences = []
    if document.allow_devbox_to_devbox:
        sentences.append("Tunnels of devboxes of the same account are open.")
    gateways = [label for flag, label in _GATEWAYS if getattr(document, flag)]
    if gateways:
        what = " and ".join(gateways[-2:]) if len(gateways) < 3 else f"{gateways[0]}, {gateways[1]} and {gateways[2]}"
        sentences.append(f"What the operator lists as {what} is open.")
    return sentences


def _enumerate(entries: Sequence[str]) -> str:
    shown, more = entries[:SHOWN_MAX], len(entries) - SHOWN_MAX
    if more > 0:
        return f"{', '.join(shown)} and {more:,} more"
    return entries[0] if len(entries) == 1 else f"{', '.join(entries[:-1])} and {entries[-1]}"
