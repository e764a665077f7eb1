"""How a policy is written on a command line, and how a policy's view becomes lines again."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from outgate.client.public import OutgateClient
from outgate.errors import InvalidValueError, OutgateError

_PORTS = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>tcp|udp))?\Z", re.ASCII | re.IGNORECASE)

_ID_PREFIX = "npol_"

FLAGS = {
    "allow_all": "allow all",
    "allow_devbox_to_devbox": "devbox to devbox",
    "allow_agent_gateway": "agent gateway",
    "allow_mcp_gateway": "MCP gateway",
    "allow_runloop_mirrors": "mirrors",
}


def find_policy_id(client: OutgateClient, reference: str) -> str:
    """The id that ``reference``, an id or a name, means. Raises OutgateError when no policy has that name."""
    if reference.startswith(_ID_PREFIX):
        return reference
    for policy in client.list_policies(name=reference):
        if policy["name"] == reference:
            return str(policy["id"])
    raise OutgateError(f"There is no policy called {reference!r}; `outgate policy list` shows them.", code="not_found")


def parse_cidr_option(text: str) -> dict[str, object]:
    """``10.0.0.0/8``, ``10.0.0.0/8:443/tcp`` or ``10.0.0.0/8:443/tcp,8000-8100`` as the API writes it.

    Raises InvalidValueError for ports in another form; the server judges the network.
    """
    cidr, colon, ports = text.partition(":")
    rule: dict[str, object] = {"cidr": cidr}
    if colon:
        rule["ports"] = [_parse_ports(part, text) for part in ports.split(",")]
    return rule


def _parse_ports(text: str, whole: str) -> dict[str, object]:
    match = _PORTS.match(text)
    if match is None:
        raise InvalidValueError(f"{whole!r}: write ports as in 10.0.0.0/8:443/tcp,8000-8100.", field="allowed_cidrs")
    ports: dict[str, object] = {"port": int(match["first"])}
    if match["last"]:
        ports["end_port"] = int(match["last"])
    if match["protocol"]:
        ports["protocol"] = match["protocol"].upper()
    return ports


def render_cidr_rule(rule: Mapping[str, object]) -> str:
    """A rule of a view in the form that :func:`parse_cidr_option` reads."""
    ports = rule.get("ports")
    if not isinstance(ports, Sequence) or not ports:
        return str(rule["cidr"])
    return f"{rule['cidr']}:{','.join(_render_ports(entry) for entry in ports)}"


def _render_ports(ports: Mapping[str, object]) -> str:
    span = str(ports["port"])
    if ports.get("end_port") not in (None, ports["port"]):
        span += f"-{ports['end_port']}"
    return span + (f"/{str(ports['protocol']).lower()}" if ports.get("protocol") else "")


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
    if egress.get("allow_all"):
        return "everything (allow_all)"
    parts = [label for field, label in FLAGS.items() if egress.get(field)]
    for field, one, many in (("allowed_hostnames", "host", "hosts"), ("allowed_cidrs", "network", "networks")):
        entries = egress.get(field)
        if isinstance(entries, Sequence) and entries:
            parts.append(f"{len(entries)} {one if len(entries) == 1 else many}")
    return ", ".join(parts) or "nothing"
