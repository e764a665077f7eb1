"""Answers of upstream resolvers, which are read with as much care as queries of devboxes.

Two readers: :func:`parse_answer` takes the addresses out, from which the gate builds its own answer;
:func:`parse_relayed_answer` checks a whole message that goes on to a devbox whose policy allows everything, and
says what has to be changed in it.
"""

import struct
from typing import Final

import msgspec

from outgate.wire.dns import (
    ADDRESS_BYTES,
    CLASS_IN,
    FLAG_RESPONSE,
    FLAG_TRUNCATED,
    HEADER_BYTES,
    LOWER,
    OPCODE_MASK,
    RESPONSE_CODE_MASK,
    TTL_S_LAST,
    DnsFormatError,
    RecordType,
    ResponseCode,
    read_name,
    skip_name,
)

ANSWER_RECORDS_MAX: Final = 512
"""More records than any honest answer; bounds the work that one datagram can ask for."""
CHAIN_LENGTH_MAX: Final = 16
"""CNAMEs that are followed; resolvers themselves give up at 8 to 16."""
ADDRESSES_MAX: Final = 64
"""Addresses of one answer that are used: each becomes a kernel element. The rest are left out."""

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_SOA_NUMBERS_BYTES: Final = 20
_QUESTION_POINTER: Final = bytes((0xC0, HEADER_BYTES))


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What an upstream resolver said to one question.

    ``addresses`` are packed, in the answer's order, without repeats; they lie at the end of the CNAME chain that
    starts at the question. ``ttl_s`` is the smallest of the chain and the addresses; of a
    negative answer what its SOA allows (RFC 2308 §5), None when there is none.
    """

    response_code: int
    addresses: tuple[bytes, ...]
    ttl_s: int | None
    is_truncated: bool = False


class RelayedAnswer(msgspec.Struct, frozen=True, gc=False):
    """A checked message that may go on to the devbox.

    ``body`` is what stands between the question and the upstream's OPT record (which concerns only us and the
    upstream), ``counts`` the records in its three sections, ``ttl_offsets`` where in ``body`` the TTLs are.
    """

    flags: int
    counts: tuple[int, int, int]
    body: bytes
    ttl_offsets: tuple[int, ...]
    ttl_s: int
    is_truncated: bool = False


def _check_header(message: bytes, query_id: int, wire_name: bytes, record_type: int) -> tuple[int, int]:
    """(flags, offset behind the question); raises :class:`DnsFormatError` unless it replies to our question."""
    question_end = HEADER_BYTES + len(wire_name) + 4
    if len(message) < question_end:
        raise DnsFormatError("shorter than the question")
    received_id, flags, questions = _HEADER.unpack_from(message)[:3]
    if received_id != query_id or not flags & FLAG_RESPONSE or flags & OPCODE_MASK or questions != 1:
        raise DnsFormatError("not a response to this query")
    expected = wire_name + record_type.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big")
    name_end = HEADER_BYTES + len(wire_name)
    if message[HEADER_BYTES:name_end].translate(LOWER) + message[name_end:question_end] != expected:
        raise DnsFormatError("a response to another question")
    return flags, question_end


def parse_answer(message: bytes, query_id: int, wire_name: bytes, record_type: int) -> Answer:
    """The addresses (``record_type`` A or AAAA) of ``wire_name`` in ``message``.

    Raises :class:`DnsFormatError` when it is malformed or answers something else.
    """
    flags, offset = _check_header(message, query_id, wire_name, record_type)
    response_code = flags & RESPONSE_CODE_MASK
    if flags & FLAG_TRUNCATED:
        return Answer(response_code, (), None, is_truncated=True)
    answers, authorities = _HEADER.unpack_from(message)[3:5]
    if answers + authorities > ANSWER_RECORDS_MAX:
        raise DnsFormatError("more records than an honest answer has")
    aliases: dict[bytes, tuple[bytes, int]] = {}
    addresses: dict[bytes, list[tuple[bytes, int]]] = {}
    for _ in range(answers):
        if message[offset : offset + 2] == _QUESTION_POINTER:  # what nearly every record's owner is
            owner, offset = wire_name, offset + 2
        else:
            owner, offset = read_name(message, offset)
        kind, ttl_s, start, offset = _read_record(message, offset)
        if kind == RecordType.CNAME:
            target, end = read_name(message, start)
            if end != offset:
                raise DnsFormatError("a CNAME record with bytes behind its name")
            aliases.setdefault(owner, (target, ttl_s))
        elif kind == record_type:
            if offset - start != ADDRESS_BYTES[record_type]:
                raise DnsFormatError("an address of the wrong length")
            addresses.setdefault(owner, []).append((message[start:offset], ttl_s))
    owner, chain_ttl_s = _follow(wire_name, aliases)
    found = addresses.get(owner, ())
    if found and response_code == ResponseCode.NOERROR:
        unique = dict.fromkeys(address for address, _ in found)
        ttl_s = min(chain_ttl_s, *(ttl_s for _, ttl_s in found))
        return Answer(response_code, tuple(unique)[:ADDRESSES_MAX], ttl_s)
    return Answer(response_code, (), _negative_ttl_s(message, offset, authorities))


def _read_record(message: bytes, offset: int) -> tuple[int, int, int, int]:
    """(type, TTL in seconds, start and end of the data) of the record whose name ends at ``offset``."""
    start = offset + _RECORD.size
    if len(message) < start:
        raise DnsFormatError("a record is cut off")
    kind, record_class, ttl_s, length = _RECORD.unpack_from(message, offset)
    end = start + length
    if len(message) < end:
        raise DnsFormatError("a record's data is cut off")
    if record_class != CLASS_IN and kind != RecordType.OPT:
        raise DnsFormatError("a record of another class")
    return kind, ttl_s if ttl_s <= TTL_S_LAST else 0, start, end


def _follow(name: bytes, aliases: dict[bytes, tuple[bytes, int]]) -> tuple[bytes, int]:
    """The end of the CNAME chain that starts at ``name``, and the smallest TTL on the way."""
    ttl_s_min = TTL_S_LAST
    for _ in range(CHAIN_LENGTH_MAX):
        if name not in aliases:
            return name, ttl_s_min
        name, ttl_s = aliases[name]
        ttl_s_min = min(ttl_s_min, ttl_s)
    raise DnsFormatError("a CNAME chain that is too long or runs in a circle")


def _negative_ttl_s(message: bytes, offset: int, authorities: int) -> int | None:
    for _ in range(authorities):
        kind, ttl_s, start, offset = _read_record(message, skip_name(message, offset))
        if kind != RecordType.SOA:
            continue
        place = skip_name(message, skip_name(message, start))
        if offset - place != _SOA_NUMBERS_BYTES:
            raise DnsFormatError("an SOA record of the wrong length")
        return min(ttl_s, int.from_bytes(message[offset - 4 : offset], "big"))
    return None


def parse_relayed_answer(message: bytes, query_id: int, wire_name: bytes, record_type: int) -> RelayedAnswer:
    """``message`` as it may be relayed. Raises :class:`DnsFormatError` when it is malformed or answers something else.

    Additional records from the OPT record on are left out: compression pointers only ever lead backwards, so
    nothing that stays points into what goes.
    """
    flags, start = _check_header(message, query_id, wire_name, record_type)
    if flags & FLAG_TRUNCATED:
        return RelayedAnswer(flags, (0, 0, 0), b"", (), 0, is_truncated=True)
    answers, authorities, additionals = _HEADER.unpack_from(message)[3:]
    if answers + authorities + additionals > ANSWER_RECORDS_MAX:
        raise DnsFormatError("more records than an honest answer has")
    offset = end = start
    ttl_offsets: list[int] = []
    ttl_s_min = TTL_S_LAST
    kept_additionals = 0
    for index in range(answers + authorities + additionals):
        kind, ttl_s, data, offset = _read_record(message, skip_name(message, offset))
        if kind == RecordType.OPT:
            if index < answers + authorities:
                raise DnsFormatError("an OPT record outside the additional section")
            break
        ttl_offsets.append(data - 6 - start)
        ttl_s_min = min(ttl_s_min, ttl_s)
        kept_additionals += index >= answers + authorities
        end = offset
    return RelayedAnswer(
        flags=flags,
        counts=(answers, authorities, kept_additionals),
        body=message[start:end],
        ttl_offsets=tuple(ttl_offsets),
        ttl_s=0 if ttl_s_min == TTL_S_LAST else ttl_s_min,
    )
