"""CIDR rules as people write them on one line, ``10.0.0.0/8:443/tcp,8000-8100``, and as the API writes them."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from outgate.errors import InvalidValueError

_PORTS: Final = re.compile(
    r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>tcp|udp))?\Z", re.ASCII | re.IGNORECASE
)


def parse_cidr_line(text: str) -> dict[str, object]:
    """``10.0.0.0/8``, ``10.0.0.0/8:443/tcp`` or ``10.0.0.0/8:443/tcp,8000-8100`` as the API writes it.

    Raises InvalidValueError for ports in another form; the network is judged where the rule is taken.
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


def render_cidr_line(rule: Mapping[str, object]) -> str:
    """A rule of the API in the form that :func:`parse_cidr_line` reads."""
    ports = rule.get("ports")
    if not isinstance(ports, Sequence) or not ports:
        return str(rule["cidr"])
    return f"{rule['cidr']}:{render_ports(ports, ',')}"


def render_ports(ports: Sequence[Mapping[str, object]], between: str = ", ") -> str:
    """Ports of the API as people write them: ``443/tcp, 8000-8100``."""
    return between.join(_render_span(entry) for entry in ports)


def _render_span(ports: Mapping[str, object]) -> str:
    span = str(ports["port"])
    if ports.get("end_port") not in (None, ports["port"]):
        span += f"-{ports['end_port']}"
    return span + (f"/{str(ports['protocol']).lower()}" if ports.get("protocol") else "")
