"""The little internet's DNS: one question in, one answer out (RFC 1035).

Written apart from Outgate's own codec, so that the two cannot share a mistake.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from outgate.cli.demo.control import Section, SetRecords

A, CNAME, AAAA = 1, 5, 28
CLASS_IN = 1
CNAMES_MAX = 8
_FLAGS = 0x8480  # response, authoritative, recursion available
_NXDOMAIN, _FORMAT_ERROR = 3, 1
_POINTER_TO_QUESTION = b"\xc0\x0c"
_POINTER_MASK = 0xC0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``end`` is where the question section ends in the message."""

    name: str
    type: int
    end: int


def parse_question(message: bytes) -> Question | None:
    """The one question of ``message``, or None when it is not a query with one question."""
    if len(message) < 12:
        return None
    flags, questions = struct.unpack_from("!HH", message, 2)
    if flags & 0x8000 or questions != 1:
        return None
    labels = []
    offset = 12
    while offset < len(message) and (length := message[offset]):
        if length & _POINTER_MASK or offset + 1 + length > len(message):
            return None
        labels.append(message[offset + 1 : offset + 1 + length].decode("latin-1").lower())
        offset += 1 + length
    if offset + 5 > len(message):
        return None
    (type_,) = struct.unpack_from("!H", message, offset + 1)
    return Question(".".join(labels), type_, offset + 5)


def render_answer(message: bytes, question: Question, zone: Mapping[str, SetRecords]) -> bytes:
    """The answer to ``question`` out of ``zone``: the chain of CNAMEs, then the addresses."""
    answers: list[bytes] = []
    owner, name = _POINTER_TO_QUESTION, question.name
    found = find_records(zone, name)
    code = 0 if found else _NXDOMAIN
    for _ in range(CNAMES_MAX):
        if found is None or found.cname is None:
            break
        target = _render_name(found.cname)
        answers.append(_render_record(owner, CNAME, found.ttl_s, target))
        owner, name = target, found.cname.rstrip(".").lower()
        found = find_records(zone, name)
    sections = {Section.ANSWER: answers, Section.AUTHORITY: [], Section.ADDITIONAL: []}
    if found is not None:
        answers += [_render_record(owner, type_, found.ttl_s, data) for type_, data in _data(found, question.type)]
        for extra in found.foreign:
            data = bytes.fromhex(extra.data_hex)
            sections[extra.section].append(_render_record(_render_name(extra.owner), extra.type, found.ttl_s, data))
    counts = [len(records) for records in sections.values()]
    head = message[:2] + struct.pack("!HHHHH", _FLAGS | (message[2] & 1) << 8 | code, 1, *counts)
    return head + message[12 : question.end] + b"".join(b"".join(records) for records in sections.values())


def render_format_error(message: bytes) -> bytes:
    """FORMERR for a message that holds no question we understand."""
    return message[:2].ljust(2, b"\0") + struct.pack("!HHHHH", _FLAGS | _FORMAT_ERROR, 0, 0, 0, 0)


def find_records(zone: Mapping[str, SetRecords], name: str) -> SetRecords | None:
    """The records of ``name``: its own, or those of the nearest wildcard above it."""
    if name in zone:
        return zone[name]
    rest = name
    while "." in rest:
        rest = rest.split(".", 1)[1]
        if f"*.{rest}" in zone:
            return zone[f"*.{rest}"]
    return None


def _data(records: SetRecords, type_: int) -> list[tuple[int, bytes]]:
    data = [(t, bytes.fromhex(rdata)) for t, rdata in records.raw if t == type_]
    for text in records.addresses:
        address = ip_address(text)
        own = A if isinstance(address, IPv4Address) else AAAA
        if own == type_:
            data.append((own, address.packed))
    return data


def _render_name(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _render_record(owner: bytes, type_: int, ttl_s: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", type_, CLASS_IN, ttl_s, len(data)) + data
