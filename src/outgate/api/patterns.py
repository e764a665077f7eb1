"""Regular expressions for the OpenAPI document: what the parsers of the model accept, as JSON Schema says it.

Only documentation. A test generates texts from them, and texts beside them, and compares with the parsers.
"""

from typing import Final

_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NUMERIC_LABEL: Final = "(?:0[xX][0-9A-Fa-f]*|[0-9]+)"
_NAME: Final = (
    rf"(?!{_NUMERIC_LABEL}(?:\.{_NUMERIC_LABEL})*\.?$)"
    r"(?=.{1,253}\.?$)"
    rf"{_LABEL}(?:\.{_LABEL})*\.?$"
)
EXACT_HOSTNAME_PATTERN: Final = f"^{_NAME}"
HOSTNAME_PATTERN: Final = rf"^(?:\*\.)?{_NAME}"
"""A host name or ``*.`` and one; at most 253 characters; never something that looks like an IPv4 address."""

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def _network_pattern(prefix: int) -> str:
    """Networks of one prefix length: whole octets, the octet that the prefix cuts, zeros."""
    whole, bits = divmod(prefix, 8)
    octets = [_OCTET] * whole
    if bits:
        step = 1 << (8 - bits)
        octets.append("(?:" + "|".join(str(value) for value in range(0, 256, step)) + ")")
    octets += ["0"] * (4 - len(octets))
    return r"\.".join(octets) + f"/{prefix}"


CIDR_PATTERN: Final = "^(?:" + "|".join(_network_pattern(prefix) for prefix in range(33)) + ")$"
"""Canonical IPv4 networks: host bits are zero."""
