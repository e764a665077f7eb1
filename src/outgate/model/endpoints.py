"""What an operator lists behind a policy's flag: host patterns and IPv4 networks."""

from outgate.errors import InvalidValueError
from outgate.model.addresses import parse_cidr, parse_port_range
from outgate.model.names import HostPattern, parse_host_pattern
from outgate.model.policy import CidrRule


def parse_endpoint(text: str) -> HostPattern | CidrRule:
    """A host pattern, or a network with or without one port: ``10.0.0.0/24``, ``10.0.0.7/32:443``.

    Raises :class:`InvalidValueError`.
    """
    if "/" not in text:
        return parse_host_pattern(text)
    network, colon, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    if not colon:
        return CidrRule(parse_cidr(network))
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise InvalidValueError(f"{port[:80]!r} is no port; write a number behind the colon, as in 10.0.0.7/32:443.")
    return CidrRule(parse_cidr(network), (parse_port_range(int(port), None, None),))


def parse_endpoints(texts: tuple[str, ...]) -> tuple[tuple[HostPattern, ...], tuple[CidrRule, ...]]:
    """All of a list, each kind in its order. Raises :class:`InvalidValueError`."""
    parsed = [parse_endpoint(text) for text in texts]
    hosts = tuple(endpoint for endpoint in parsed if isinstance(endpoint, HostPattern))
    return hosts, tuple(endpoint for endpoint in parsed if isinstance(endpoint, CidrRule))
