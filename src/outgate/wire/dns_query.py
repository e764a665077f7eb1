"""Queries: reading the devbox's, and writing our own to the upstream resolver.

A query is never passed on. What a devbox asks is parsed to a :class:`Query`; what goes upstream is built
from its question alone, so that no byte of the devbox's choosing but the name's leaves through DNS.
"""

import struct
from typing import Final

import msgspec

from outgate.wire.dns import (
    CLASS_IN,
    FLAG_CHECKING_DISABLED,
    FLAG_RECURSION_DESIRED,
    FLAG_RESPONSE,
    HEADER_BYTES,
    LOWER,
    OPCODE_MASK,
    UDP_BYTES_MAX,
    UDP_BYTES_MIN,
    DnsFormatError,
    RecordType,
    ResponseCode,
    skip_plain_name,
)

_HEADER = struct.Struct(">HHHHHH")
_TYPE_AND_CLASS = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_EDNS_VERSION_SHIFT: Final = 16
_DNSSEC_OK: Final = 0x8000


class Query(msgspec.Struct, gc=False):
    """One parsed query. ``question`` is the question section as asked: a reply echoes its spelling.

    ``wire_name`` is the name in lower case. ``udp_bytes_max`` is what the client takes over UDP.
    ``has_edns``: only then may a reply carry an OPT record, and with it an extended error. (Not frozen
    because one is made for every query: frozen ones take three times as long.)
    """

    id: int
    flags: int
    wire_name: bytes
    record_type: int
    record_class: int
    question: bytes
    has_edns: bool
    dnssec_ok: bool
    udp_bytes_max: int

    @property
    def checking_disabled(self) -> bool:
        """Whether the client asked for answers without DNSSEC validation."""
        return bool(self.flags & FLAG_CHECKING_DISABLED)


def parse_query(message: bytes) -> Query:
    """The query in ``message``.

    Exactly one question, nothing in the answer and authority sections, at most an OPT record in the additional
    section, and no byte behind. Raises :class:`DnsFormatError`, with the code to answer by.
    """
    if len(message) < HEADER_BYTES:
        raise DnsFormatError("shorter than a header")
    query_id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    if flags & FLAG_RESPONSE:
        raise DnsFormatError("a response, not a query")
    if flags & OPCODE_MASK:
        raise DnsFormatError("only standard queries are served", ResponseCode.NOTIMP)
    if questions != 1 or answers or authorities or additionals > 1:
        raise DnsFormatError("a query has one question and no records but OPT")
    name_end = skip_plain_name(message, HEADER_BYTES)
    end = name_end + _TYPE_AND_CLASS.size
    if len(message) < end:
        raise DnsFormatError("the question is cut off")
    record_type, record_class = _TYPE_AND_CLASS.unpack_from(message, name_end)
    udp_bytes_max, dnssec_ok = UDP_BYTES_MIN, False
    if additionals:
        udp_bytes_max, dnssec_ok = _parse_opt(message, end)
    elif len(message) != end:
        raise DnsFormatError("bytes behind the question")
    return Query(
        query_id,
        flags,
        message[HEADER_BYTES:name_end].translate(LOWER),
        record_type,
        record_class,
        message[HEADER_BYTES:end],
        additionals == 1,
        dnssec_ok,
        udp_bytes_max,
    )


def _parse_opt(message: bytes, offset: int) -> tuple[int, bool]:
    """What the client takes over UDP, and its DO flag, from the OPT record at ``offset`` (RFC 6891 §6.1)."""
    content = offset + 1 + _RECORD.size
    if len(message) < content or message[offset]:
        raise DnsFormatError("the additional record is no OPT record")
    record_type, udp_bytes, flags, length = _RECORD.unpack_from(message, offset + 1)
    if record_type != RecordType.OPT:
        raise DnsFormatError("the additional record is no OPT record")
    if (flags >> _EDNS_VERSION_SHIFT) & 0xFF:
        # BADVERS is an extended code, 16: its low four bits are 0, which would read as success. FORMERR makes
        # every client fall back to plain DNS. (No version but 0 exists.)
        raise DnsFormatError("an unknown version of EDNS")
    if len(message) != content + length:
        raise DnsFormatError("bytes behind the OPT record")
    return min(max(udp_bytes, UDP_BYTES_MIN), UDP_BYTES_MAX), bool(flags & _DNSSEC_OK)


def parse_query_id(message: bytes) -> int | None:
    """The id to refuse a malformed query by; None when ``message`` is a response or no message at all."""
    if len(message) < HEADER_BYTES or message[2] & 0x80:
        return None
    return message[0] << 8 | message[1]


_QUERY_TAIL: Final = struct.pack(">HHBHHIH", 0, CLASS_IN, 0, RecordType.OPT, UDP_BYTES_MAX, 0, 0)[4:]
_QUERY_TAIL_DNSSEC: Final = struct.pack(">HHBHHIH", 0, CLASS_IN, 0, RecordType.OPT, UDP_BYTES_MAX, _DNSSEC_OK, 0)[4:]


def render_query(
    query_id: int, wire_name: bytes, record_type: int, *, dnssec_ok: bool = False, checking_disabled: bool = False
) -> bytes:
    """A canonical recursive query, class IN, with EDNS."""
    flags = FLAG_RECURSION_DESIRED | (FLAG_CHECKING_DISABLED if checking_disabled else 0)
    tail = _QUERY_TAIL_DNSSEC if dnssec_ok else _QUERY_TAIL
    return _HEADER.pack(query_id, flags, 1, 0, 0, 1) + wire_name + _TYPE_AND_CLASS.pack(record_type, CLASS_IN) + tail
