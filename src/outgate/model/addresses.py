"""Addresses, networks, ports and protocols as rules speak of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from typing import Final

from outgate.errors import InvalidValueError
from outgate.model.shown import show_text

IPAddress = IPv4Address | IPv6Address

PORT_MIN = 1
PORT_MAX = 65535

_PREFIX_LENGTHS: Final = frozenset(str(length) for length in range(33))


class Protocol(IntEnum):
    """IP protocol numbers that a rule or a reason can name (IANA protocol-numbers)."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58


def protocol_word(number: int) -> str:
    """A protocol as records say it: ``tcp``, or its number where it has no name here."""
    return _PROTOCOL_WORDS.get(number) or str(number)


_PROTOCOL_WORDS: Final[Mapping[int, str]] = {protocol: protocol.name.lower() for protocol in Protocol}


class CidrError(InvalidValueError):
    """A text is not a network that a rule may name; the message gives the canonical form."""

    code = "invalid_cidr"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports ``first`` to ``last`` inclusive, of one protocol or, when ``protocol`` is None, of TCP and UDP.

    ``end_port_given`` remembers whether the caller wrote ``end_port``: views echo what was given.
    """

    first: int
    last: int
    protocol: Protocol | None
    end_port_given: bool = field(default=True, compare=False)

    def covers(self, protocol: int, port: int) -> bool:
        """Whether TCP or UDP ``port`` lies in the range."""
        own = (Protocol.TCP, Protocol.UDP) if self.protocol is None else (self.protocol,)
        return protocol in own and self.first <= port <= self.last


def parse_port_range(first: int, last: int | None, protocol: Protocol | None) -> PortRange:
    """Ports ``first``..``last`` (``first`` alone when ``last`` is None).

    Raises :class:`InvalidValueError` whose ``field`` is ``port`` or ``end_port``.
    """
    for name, value in (("port", first), ("end_port", last)):
        if value is not None and not PORT_MIN <= value <= PORT_MAX:
            raise InvalidValueError(f"{name} is {value}; ports are {PORT_MIN} to {PORT_MAX}.", field=name)
    if last is not None and last < first:
        raise InvalidValueError(
            f"end_port {last} lies before port {first}; swap them, or leave end_port out for one port.",
            field="end_port",
        )
    return PortRange(first, first if last is None else last, protocol, end_port_given=last is not None)


def parse_cidr(text: str) -> IPv4Network:
    """The canonical IPv4 network that ``text`` spells, as ``a.b.c.d/n`` without host bits.

    Raises :class:`CidrError`; where the text has a canonical form, the message prints it.
    """
    shown = show_text(text)
    address, slash, prefix = text.partition("/")
    if ":" in address:
        raise CidrError(f"{shown} is IPv6; allowed_cidrs takes IPv4 networks only.")
    try:
        host = IPv4Address(address)
    except AddressValueError:
        raise CidrError(f"{shown} is not an IPv4 network; write it as in 192.0.2.0/24.") from None
    if not slash:
        raise CidrError(f"{shown} lacks a prefix length; write {host}/32 for this one address.")
    if prefix not in _PREFIX_LENGTHS:
        raise CidrError(f"{shown} has no valid prefix length; write /0 to /32 after the address.")
    network = IPv4Network((host, int(prefix)), strict=False)
    if network.network_address != host:
        raise CidrError(f"{shown} has host bits set; write {network} instead.")
    return network
