"""Replies to devboxes, built from values (RFC 1035, EDNS after RFC 6891, extended errors after RFC 8914)."""

import struct
from collections.abc import Sequence
from typing import Final

from outgate.wire.dns import (
    CLASS_IN,
    FLAG_AUTHENTIC,
    FLAG_CHECKING_DISABLED,
    FLAG_RECURSION_AVAILABLE,
    FLAG_RECURSION_DESIRED,
    FLAG_RESPONSE,
    FLAG_TRUNCATED,
    HEADER_BYTES,
    RESPONSE_CODE_MASK,
    UDP_BYTES_MAX,
    ExtendedError,
    RecordType,
    ResponseCode,
)
from outgate.wire.dns_answer import RelayedAnswer
from outgate.wire.dns_query import Query

EXTENDED_TEXT_BYTES_MAX: Final = 400
"""Room for a long name and what to do about it; EDNS clients take 1232 bytes, and longer replies go by TCP."""

_HEADER = struct.Struct(">HHHHHH")
_RECORD_AT_QUESTION = struct.Struct(">HHHIH")
_OPT = struct.Struct(">BHHIH")
_OPTION = struct.Struct(">HHH")
_OPTION_EXTENDED_ERROR: Final = 15
_DNSSEC_OK: Final = 0x8000
_POINTER_TO_QUESTION: Final = 0xC000 | HEADER_BYTES
_ECHOED_FLAGS: Final = FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED

_SOA_DATA: Final = (
    b"\7outgate\7invalid\0"  # primary server; .invalid never exists (RFC 6761 §6.4)
    b"\x0ahostmaster\7outgate\7invalid\0" + struct.pack(">IIIII", 1, 3600, 600, 86400, 0)
)
_SOA: Final = _RECORD_AT_QUESTION.pack(_POINTER_TO_QUESTION, RecordType.SOA, CLASS_IN, 0, len(_SOA_DATA)) + _SOA_DATA
"""TTL and minimum 0: nobody keeps a denial, so the next look-up after an update sees the new policy."""


def render_addresses(query: Query, addresses: Sequence[bytes], ttl_s: int) -> bytes:
    """A positive reply: the packed ``addresses`` as records of the asked type and name."""
    size = len(addresses[0])
    head = _RECORD_AT_QUESTION.pack(_POINTER_TO_QUESTION, query.record_type, CLASS_IN, ttl_s, size)
    records = b"".join([head + address for address in addresses])
    return _render(query, ResponseCode.NOERROR, (len(addresses), 0), records)


def render_negative(query: Query, code: ResponseCode, error: ExtendedError | None = None, text: str = "") -> bytes:
    """A reply without records: NXDOMAIN and NOERROR come with an SOA record that forbids keeping them.

    ``error`` and ``text`` go into an extended error if the client speaks EDNS.
    """
    option = b"" if error is None else _render_extended_error(error, text)
    if code in (ResponseCode.NXDOMAIN, ResponseCode.NOERROR):
        return _render(query, code, (0, 1), _SOA, option)
    return _render(query, code, (0, 0), b"", option)


def render_relayed(query: Query, answer: RelayedAnswer, age_s: int) -> bytes:
    """The upstream's answer as the devbox gets it: its id and spelling, TTLs less ``age_s``, our own EDNS."""
    body = bytearray(answer.body)
    for offset in answer.ttl_offsets:
        ttl_s = int.from_bytes(body[offset : offset + 4], "big")
        body[offset : offset + 4] = max(0, ttl_s - age_s).to_bytes(4, "big")
    wants_authentic = query.dnssec_ok or query.flags & FLAG_AUTHENTIC
    authentic = answer.flags & FLAG_AUTHENTIC if wants_authentic else 0  # RFC 6840 §5.8
    flags = (
        FLAG_RESPONSE
        | FLAG_RECURSION_AVAILABLE
        | (query.flags & _ECHOED_FLAGS)
        | authentic
        | (answer.flags & RESPONSE_CODE_MASK)
    )
    answers, authorities, additionals = answer.counts
    opt = _render_opt(query, b"") if query.has_edns else b""
    header = _HEADER.pack(query.id, flags, 1, answers, authorities, additionals + query.has_edns)
    return b"".join((header, query.question, body, opt))


def render_truncated(query: Query) -> bytes:
    """A reply that sends the client to TCP."""
    return _render(query, ResponseCode.NOERROR, (0, 0), b"", flags=FLAG_TRUNCATED)


def render_refusal(query_id: int, code: ResponseCode) -> bytes:
    """A bare header, for queries whose question cannot be echoed."""
    return _HEADER.pack(query_id, FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | code, 0, 0, 0, 0)


def fit_udp(query: Query, reply: bytes) -> bytes:
    """``reply``, or the truncated reply when it is longer than the client takes over UDP."""
    return reply if len(reply) <= query.udp_bytes_max else render_truncated(query)


def _render(
    query: Query, code: ResponseCode, counts: tuple[int, int], records: bytes, option: bytes = b"", *, flags: int = 0
) -> bytes:
    flags |= FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | (query.flags & _ECHOED_FLAGS) | code
    if not query.has_edns:
        return _HEADER.pack(query.id, flags, 1, *counts, 0) + query.question + records
    return _HEADER.pack(query.id, flags, 1, *counts, 1) + query.question + records + _render_opt(query, option)


def _render_opt(query: Query, option: bytes) -> bytes:
    return _OPT.pack(0, RecordType.OPT, UDP_BYTES_MAX, _DNSSEC_OK if query.dnssec_ok else 0, len(option)) + option


def _render_extended_error(error: ExtendedError, text: str) -> bytes:
    # Cut between characters: half of one would not be UTF-8 any more.
    extra = text.encode("utf-8", "replace")[:EXTENDED_TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()
    return _OPTION.pack(_OPTION_EXTENDED_ERROR, 2 + len(extra), error) + extra
