"""What the DNS modules share: numbers of the protocol, names in wire form, and the one error.

Names travel through the gate as *wire names*: labels with their length bytes and the closing zero, lower
case, never compressed (RFC 1035 §3.1, §4.1.4; RFC 4343 on case). A wire name can hold any bytes; only
:func:`host_name` turns one into a name that a policy can be asked about. Everything is total: any bytes
give a value or :class:`DnsFormatError`.
"""

import re
from enum import IntEnum
from typing import Final

from outgate.errors import OutgateError
from outgate.model.names import NAME_LENGTH_MAX, DomainName, HostNameError, parse_domain_name

HEADER_BYTES: Final = 12
WIRE_NAME_BYTES_MAX: Final = 255
"""RFC 1035 §2.3.4, the closing zero included."""
LABEL_BYTES_MAX: Final = 63
CLASS_IN: Final = 1
TTL_S_LAST: Final = 0x7FFF_FFFF
"""RFC 2181 §8: a TTL with the top bit set counts as zero."""
UDP_BYTES_MIN: Final = 512
"""What every client takes (RFC 1035 §4.2.1)."""
UDP_BYTES_MAX: Final = 1232
"""What we send and ask for over UDP: never fragmented on any usual path (DNS flag day 2020)."""

FLAG_RESPONSE: Final = 0x8000
FLAG_TRUNCATED: Final = 0x0200
FLAG_RECURSION_DESIRED: Final = 0x0100
FLAG_RECURSION_AVAILABLE: Final = 0x0080
FLAG_AUTHENTIC: Final = 0x0020
FLAG_CHECKING_DISABLED: Final = 0x0010
OPCODE_MASK: Final = 0x7800
RESPONSE_CODE_MASK: Final = 0x000F

LOWER: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
"""Lower-cases a wire name as a whole: length bytes are below 64 and so are no letters."""


class RecordType(IntEnum):
    """Record types that the gate treats by name (IANA dns-parameters)."""

    A = 1
    CNAME = 5
    SOA = 6
    AAAA = 28
    OPT = 41


ADDRESS_BYTES: Final = {int(RecordType.A): 4, int(RecordType.AAAA): 16}


class ResponseCode(IntEnum):
    """Response codes (RFC 1035 §4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class ExtendedError(IntEnum):
    """Extended DNS errors that the gate gives (RFC 8914 §4)."""

    BLOCKED = 15
    """The operator of this resolver does not allow the name."""
    PROHIBITED = 18
    """The client may not ask here."""
    NO_REACHABLE_AUTHORITY = 22
    OTHER = 0


class DnsFormatError(OutgateError):
    """Bytes that are not the DNS message they should be; ``response_code`` is what their sender is told."""

    code = "bad_dns_message"

    def __init__(self, message: str, response_code: ResponseCode = ResponseCode.FORMERR) -> None:
        super().__init__(message)
        self.response_code = response_code


def skip_plain_name(message: bytes, offset: int) -> int:
    """The offset behind the uncompressed name at ``offset``. Raises :class:`DnsFormatError`."""
    start = offset
    try:
        while length := message[offset]:
            if length > LABEL_BYTES_MAX:
                raise DnsFormatError("a label is longer than 63 bytes, or the name is compressed")
            offset += length + 1
    except IndexError:
        raise DnsFormatError("a name runs past the end") from None
    if offset + 1 - start > WIRE_NAME_BYTES_MAX:
        raise DnsFormatError("a name is longer than 255 bytes")
    return offset + 1


def read_name(message: bytes, offset: int) -> tuple[bytes, int]:
    """The wire name at ``offset``, which may be compressed, and the offset behind it.

    Each pointer must lead to a place before the part of the name that holds it, so the walk ends; the name's length
    bounds it to 127 labels. Raises :class:`DnsFormatError`.
    """
    parts: list[bytes] = []
    size = 1
    behind = -1
    start = offset
    try:
        while length := message[offset]:
            if length <= LABEL_BYTES_MAX:
                end = offset + length + 1
                parts.append(message[offset:end])
                size += length + 1
                if size > WIRE_NAME_BYTES_MAX:
                    raise DnsFormatError("a name is longer than 255 bytes")
                offset = end
                continue
            if length < 0xC0:
                raise DnsFormatError("a label of an unknown kind")
            target = (length & 0x3F) << 8 | message[offset + 1]
            if behind < 0:
                behind = offset + 2
            if target >= start or target < HEADER_BYTES:
                raise DnsFormatError("a compression pointer does not lead backwards")
            offset = start = target
    except IndexError:
        raise DnsFormatError("a name runs past the end") from None
    parts.append(b"\0")
    return b"".join(parts).translate(LOWER), behind if behind >= 0 else offset + 1


def skip_name(message: bytes, offset: int) -> int:
    """The offset behind the name at ``offset``, which may be compressed; what it spells does not matter.

    Pointers lead backwards, as everywhere. Raises :class:`DnsFormatError`.
    """
    start = offset
    try:
        while length := message[offset]:
            if length >= 0xC0:
                if not HEADER_BYTES <= (length & 0x3F) << 8 | message[offset + 1] < start:
                    raise DnsFormatError("a compression pointer does not lead backwards")
                return offset + 2
            if length > LABEL_BYTES_MAX:
                raise DnsFormatError("a label of an unknown kind")
            offset += length + 1
    except IndexError:
        raise DnsFormatError("a name runs past the end") from None
    return offset + 1


_PLAIN_HOST_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z", re.ASCII
)
"""A part of the names in normal form that costs a tenth of the whole parser: the last label starts with a letter."""


def host_name(wire_name: bytes) -> DomainName | None:
    """The host name that a wire name spells, or None when it spells none (by the rules of ``model.names``)."""
    labels: list[bytes] = []
    offset = 0
    while length := wire_name[offset]:
        labels.append(wire_name[offset + 1 : offset + 1 + length])
        offset += length + 1
    # A dot *inside* a label must not turn into a border between labels.
    text = b".".join(labels).decode("latin-1")
    if text.count(".") + 1 != len(labels):
        return None
    if len(text) <= NAME_LENGTH_MAX and _PLAIN_HOST_NAME.match(text):
        return DomainName(text)
    try:
        return parse_domain_name(text)
    except HostNameError:
        return None


def wire_name(name: DomainName) -> bytes:
    """The wire name of a host name."""
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in name.split(".")) + b"\0"


def shown_name(wire_name: bytes) -> str:
    """A wire name as logs show it: dots between labels, anything unusual escaped (RFC 4343 §2.1).

    What escaping makes longer than any host name is cut, so that nobody can blow up a log by odd names.
    """
    labels: list[bytes] = []
    offset = 0
    while length := wire_name[offset]:
        labels.append(wire_name[offset + 1 : offset + 1 + length])
        offset += length + 1
    text = b".".join(labels).decode("latin-1")
    if not _PLAIN_TEXT.match(text) or text.count(".") != len(labels) - 1:
        text = ".".join("".join(map(_show_byte, label)) for label in labels) or "."
    return text if len(text) <= NAME_LENGTH_MAX else f"{text[:NAME_LENGTH_MAX]}..."


_PLAIN_TEXT = re.compile(r"[!-\[\]-~]+\Z", re.ASCII)
"""Visible ASCII without the backslash."""


def _show_byte(byte: int) -> str:
    return chr(byte) if 0x21 <= byte <= 0x7E and byte not in b".\\" else f"\\{byte:03d}"
