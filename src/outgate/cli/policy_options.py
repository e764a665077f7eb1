"""How a policy is written on a command line, and how a policy's view becomes lines again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from outgate.client.public import OutgateClient
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.policy import EGRESS_FLAGS

_ID_PREFIX = "npol_"
REPORT_ONLY = "EVERYTHING: REPORT ONLY"
"""How loudly it is said that a policy holds nothing back."""

# Of EGRESS_FLAGS, in their order.
_FLAG_LABELS = ("allow all", "devbox to devbox", "agent gateway", "MCP gateway", "mirrors")


def find_policy_id(client: OutgateClient, reference: str) -> str:
    """The id that ``reference``, an id or a name, means. Raises OutgateError when no policy has that name."""
    if reference.startswith(_ID_PREFIX):
        return reference
    for policy in client.list_policies(name=reference):
        if policy["name"] == reference:
            return str(policy["id"])
    raise OutgateError(f"There is no policy called {reference!r}; `outgate policy list` shows them.", code="not_found")


def read_policy_file(path: Path) -> dict[str, object]:
    """The JSON object in ``path``: a body as the API takes it. Raises InvalidValueError."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidValueError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InvalidValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidValueError(f"{path} holds no JSON object.")
    return body


def summarise_policy(view: Mapping[str, object]) -> str:
    """One line: what the policy lets through."""
    egress = view.get("egress")
    if not isinstance(egress, Mapping):
        return ""
    text = _summarise_egress(egress)
    return f"{REPORT_ONLY}; enforced, it would be {text}" if view.get("enforcement") == "report_only" else text


def _summarise_egress(egress: Mapping[str, object]) -> str:
    if egress.get("allow_all"):
        return "everything (allow_all)"
    parts = [label for field, label in zip(EGRESS_FLAGS, _FLAG_LABELS, strict=True) if egress.get(field)]
    for field, one, many in (("allowed_hostnames", "host", "hosts"), ("allowed_cidrs", "network", "networks")):
        entries = egress.get(field)
        if isinstance(entries, Sequence) and entries:
            parts.append(f"{len(entries)} {one if len(entries) == 1 else many}")
    return ", ".join(parts) or "nothing"
