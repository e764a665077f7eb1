"""Replies: every one is read back by dnspython."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.dns import ExtendedError, ResponseCode
from outgate.wire.dns_answer import parse_relayed_answer
from outgate.wire.dns_query import Query, parse_query
from outgate.wire.dns_reply import (
    EXTENDED_TEXT_BYTES_MAX,
    fit_udp,
    render_addresses,
    render_negative,
    render_refusal,
    render_relayed,
    render_truncated,
)
from support.dns_server import make_records

WIRE = b"\3www\7example\3com\0"


def ask(kind: str = "A", *, edns: int = 0, payload: int = 1232, dnssec: bool = False) -> Query:
    asked = dns.message.make_query("wWw.ExAmple.com", kind, id=77, use_edns=edns, payload=payload, want_dnssec=dnssec)
    return parse_query(asked.to_wire())


@given(st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=64, unique=True), st.integers(1, 3600))
def test_addresses(addresses: list[bytes], ttl_s: int) -> None:
    read = dns.message.from_wire(render_addresses(ask(), addresses, ttl_s))
    assert (read.id, read.rcode()) == (77, dns.rcode.NOERROR)
    assert read.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA
    assert str(read.question[0].name) == "wWw.ExAmple.com."
    (records,) = read.answer
    assert str(records.name) == "wWw.ExAmple.com."
    assert records.ttl == ttl_s
    assert [record.to_wire() for record in records] == addresses


@pytest.mark.parametrize("code", [ResponseCode.NXDOMAIN, ResponseCode.NOERROR])
def test_negative_replies_forbid_to_be_kept(code: ResponseCode) -> None:
    read = dns.message.from_wire(render_negative(ask("HTTPS"), code, ExtendedError.BLOCKED, "policy 'ci': nö"))
    assert int(read.rcode()) == int(code)
    (soa,) = read.authority
    assert (soa.rdtype, soa.ttl, soa[0].minimum) == (dns.rdatatype.SOA, 0, 0)
    (option,) = read.options
    assert isinstance(option, dns.edns.EDEOption)
    assert (option.code, option.text) == (15, "policy 'ci': nö")


def test_without_edns_there_is_no_extended_error() -> None:
    read = dns.message.from_wire(render_negative(ask(edns=-1), ResponseCode.NXDOMAIN, ExtendedError.BLOCKED, "no"))
    assert (read.edns, read.rcode()) == (-1, dns.rcode.NXDOMAIN)


def test_refused_has_no_soa() -> None:
    read = dns.message.from_wire(render_negative(ask(), ResponseCode.REFUSED, ExtendedError.BLOCKED, "no"))
    assert (read.rcode(), read.authority) == (dns.rcode.REFUSED, [])


@given(st.text(max_size=600))
def test_extended_errors_are_cut_between_characters(text: str) -> None:
    read = dns.message.from_wire(render_negative(ask(), ResponseCode.NXDOMAIN, ExtendedError.BLOCKED, text))
    (option,) = read.options
    assert isinstance(option, dns.edns.EDEOption)
    shown = option.text or ""
    expected = text.encode("utf-8", "replace").decode()
    assert expected.rstrip("\0").startswith(shown.rstrip("\0"))
    assert len(shown.encode()) <= EXTENDED_TEXT_BYTES_MAX


def test_long_replies_send_the_client_to_tcp() -> None:
    query = ask(edns=-1)
    reply = render_addresses(query, [bytes((192, 0, 2, i)) for i in range(64)], 60)
    read = dns.message.from_wire(fit_udp(query, reply))
    assert read.flags & dns.flags.TC
    assert not read.answer
    assert fit_udp(ask(), reply) == reply
    assert dns.message.from_wire(render_truncated(ask())).flags & dns.flags.TC


def test_refusals_without_a_question() -> None:
    read = dns.message.from_wire(render_refusal(77, ResponseCode.FORMERR))
    assert (read.id, read.rcode(), read.question) == (77, dns.rcode.FORMERR, [])


def relay(message: dns.message.Message, query: Query, age_s: int = 0) -> dns.message.Message:
    answer = parse_relayed_answer(message.to_wire(max_size=65535), 7, WIRE, query.record_type)
    return dns.message.from_wire(render_relayed(query, answer, age_s))


def respond(kind: str, data: list[str], *, additional: str | None = None) -> dns.message.Message:
    asked = dns.message.make_query("www.example.com", kind, id=7, use_edns=0)
    message = dns.message.make_response(asked)
    message.answer.append(make_records("www.example.com", 300, kind, data))
    message.authority.append(make_records("example.com", 100, "NS", ["ns.example.com"]))
    if additional is not None:
        message.additional.append(make_records("ns.example.com", 50, "A", [additional]))
    return message


def test_a_relayed_answer_is_the_upstreams_with_our_id_spelling_age_and_edns() -> None:
    upstream = respond("MX", ["10 mail.example.com", "20 other.example.org"], additional="192.0.2.53")
    upstream.flags |= dns.flags.AA | dns.flags.AD
    read = relay(upstream, ask("MX"), age_s=40)
    assert read.id == 77
    assert str(read.question[0].name) == "wWw.ExAmple.com."
    assert [set(rrset) for rrset in read.answer] == [set(rrset) for rrset in upstream.answer]
    assert [rrset.ttl for rrset in (*read.answer, *read.authority, *read.additional)] == [260, 60, 10]
    assert read.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA
    assert (read.edns, read.payload) == (0, 1232)


def test_the_authentic_flag_goes_to_those_who_asked_for_it() -> None:
    upstream = respond("TXT", ['"v=spf1 -all"'])
    upstream.flags |= dns.flags.AD
    assert relay(upstream, ask("TXT", dnssec=True)).flags & dns.flags.AD
    assert not relay(upstream, ask("TXT")).flags & dns.flags.AD


def test_a_client_without_edns_gets_none() -> None:
    assert relay(respond("TXT", ['"x"']), ask("TXT", edns=-1)).edns == -1


def test_the_smallest_ttl_is_what_the_answer_may_be_kept() -> None:
    message = respond("TXT", ['"x"'], additional="192.0.2.53")
    assert parse_relayed_answer(message.to_wire(), 7, WIRE, 16).ttl_s == 50
