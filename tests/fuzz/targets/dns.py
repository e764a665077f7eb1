"""Queries of devboxes, answers of resolvers, and messages in a stream."""

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype

from fuzz.cuts import ways_to_cut
from outgate.model.names import parse_domain_name
from outgate.wire.dns import (
    HEADER_BYTES,
    WIRE_NAME_BYTES_MAX,
    DnsFormatError,
    ExtendedError,
    RecordType,
    ResponseCode,
    host_name,
    read_name,
    shown_name,
    skip_name,
    skip_plain_name,
    wire_name,
)
from outgate.wire.dns_answer import ADDRESSES_MAX, parse_answer, parse_relayed_answer
from outgate.wire.dns_query import Query, parse_query, parse_query_id, render_query
from outgate.wire.dns_reply import fit_udp, render_negative, render_refusal, render_relayed
from outgate.wire.dns_stream import MessageStream

_SHOWN_LENGTH_MAX = 256
_STREAM_BYTES_MAX = 700


def read_query(data: bytes) -> None:
    try:
        query = parse_query(data)
    except DnsFormatError as error:
        _check_refusal(data, error.response_code)
        return
    read = dns.message.from_wire(data, ignore_trailing=True, continue_on_error=True)
    question = read.question[0]
    assert (question.name.to_wire() or b"").lower() == query.wire_name, "dnspython reads another name"
    assert (int(question.rdtype), query.id) == (query.record_type, read.id)
    assert data.startswith(query.question, HEADER_BYTES)
    _check_name(query.wire_name)
    _check_forwarded(query)
    for code in (ResponseCode.NXDOMAIN, ResponseCode.REFUSED):
        reply = render_negative(query, code, ExtendedError.BLOCKED, "because")
        heard = dns.message.from_wire(reply)
        assert (heard.id, int(heard.rcode())) == (query.id, code)
        assert heard.question[0].name == question.name
        assert len(fit_udp(query, reply)) <= max(query.udp_bytes_max, HEADER_BYTES + len(query.question) + 11)


def _check_refusal(data: bytes, code: ResponseCode) -> None:
    query_id = parse_query_id(data)
    if query_id is not None:
        refusal = dns.message.from_wire(render_refusal(query_id, code))
        assert (refusal.id, int(refusal.rcode())) == (query_id, code)


def _check_name(name: bytes) -> None:
    shown = shown_name(name)
    assert len(shown) <= _SHOWN_LENGTH_MAX
    assert shown.isascii()
    assert shown.isprintable()
    host = host_name(name)
    if host is not None:
        assert wire_name(host) == name, "a host name that is another one on the wire"
        assert parse_domain_name(host) == host


def _check_forwarded(query: Query) -> None:
    """Nothing of the client's but the name and the type goes upstream."""
    forwarded = render_query(7, query.wire_name, query.record_type, dnssec_ok=query.dnssec_ok)
    again = parse_query(forwarded)
    assert (again.wire_name, again.record_type) == (query.wire_name, query.record_type)
    assert forwarded == render_query(7, again.wire_name, again.record_type, dnssec_ok=again.dnssec_ok)


def read_answer(data: bytes) -> None:
    """The message is taken as the answer to the question that it holds itself."""
    try:
        end = skip_plain_name(data, HEADER_BYTES)
    except DnsFormatError:
        return
    query_id = int.from_bytes(data[:2], "big")
    name = data[HEADER_BYTES:end].lower()
    for record_type in (RecordType.A, RecordType.AAAA):
        _read_addresses(data, query_id, name, record_type)
        _read_relayed(data, query_id, name, record_type)


def _read_addresses(data: bytes, query_id: int, name: bytes, record_type: RecordType) -> None:
    try:
        answer = parse_answer(data, query_id, name, record_type)
    except DnsFormatError:
        return
    assert len(answer.addresses) <= ADDRESSES_MAX
    assert len(set(answer.addresses)) == len(answer.addresses)
    assert answer.response_code == ResponseCode.NOERROR or not answer.addresses
    try:
        read = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return
    listed = {
        record.to_wire() or b"" for entries in read.answer if int(entries.rdtype) == record_type for record in entries
    }
    assert set(answer.addresses) <= listed, "an address that the answer does not hold"


def _read_relayed(data: bytes, query_id: int, name: bytes, record_type: RecordType) -> None:
    try:
        answer = parse_relayed_answer(data, query_id, name, record_type)
    except DnsFormatError:
        return
    query = parse_query(render_query(99, name, record_type))
    relayed = render_relayed(query, answer, 1)
    assert len(relayed) <= len(data) + 11
    if answer.is_truncated:
        return
    again = parse_relayed_answer(relayed, 99, name, record_type)
    assert again.counts == answer.counts, "what goes on to the devbox holds other records"
    assert again.ttl_offsets == answer.ttl_offsets


def read_names(data: bytes) -> None:
    """Any offset of any message, compression included; the first byte says where to begin."""
    if not data:
        return
    message, offset = data[1:], data[0] % (len(data) + 2)
    try:
        name, behind = read_name(message, offset)
    except DnsFormatError:
        return
    assert len(name) <= WIRE_NAME_BYTES_MAX
    assert offset < behind <= len(message)
    assert skip_name(message, offset) == behind
    assert read_name(name, 0) == (name, len(name)), "a name that was read is not in normal form"
    _check_name(name)


def read_stream(data: bytes) -> None:
    whole = _read_stream((data,))
    for pieces in ways_to_cut(data):
        assert _read_stream(pieces) == whole


def _read_stream(pieces: tuple[bytes, ...]) -> tuple[list[bytes], bool]:
    stream = MessageStream(_STREAM_BYTES_MAX)
    messages: list[bytes] = []
    fed = 0
    for piece in pieces:
        fed += len(piece)
        try:
            messages += stream.receive(piece)
        except DnsFormatError:
            # The messages before the one that is too long count for nothing: the connection ends.
            return [], True
        held = fed - sum(len(message) + 2 for message in messages)
        assert 0 <= held <= _STREAM_BYTES_MAX + 1
    return messages, False
