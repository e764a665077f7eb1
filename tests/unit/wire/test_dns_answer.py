"""Answers of upstream resolvers: what is taken from them, and what is refused."""

from itertools import pairwise

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.dns import DnsFormatError
from outgate.wire.dns_answer import ADDRESSES_MAX, parse_answer, parse_relayed_answer
from support.dns_server import make_records

A, AAAA = 1, 28
WIRE = b"\3www\7example\3com\0"


def respond(*records: str, rcode: int = 0, authority: tuple[str, ...] = (), question: str = "A") -> dns.message.Message:
    query = dns.message.make_query("www.example.com", question, id=7)
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.Rcode(rcode))
    for section, texts in ((message.answer, records), (message.authority, authority)):
        for text in texts:
            owner, ttl, kind, *data = text.split()
            section.append(make_records(owner, int(ttl), kind, [" ".join(data)]))
    return message


def test_addresses_are_taken_with_the_smallest_ttl() -> None:
    message = respond(
        "www.example.com 300 CNAME Edge.Example.Net",
        "edge.example.net 60 CNAME e1.example.net",
        "e1.example.net 90 A 192.0.2.1",
        "e1.example.net 90 A 192.0.2.2",
    )
    answer = parse_answer(message.to_wire(), 7, WIRE, A)
    assert answer.addresses == (b"\xc0\0\2\1", b"\xc0\0\2\2")
    assert answer.ttl_s == 60


def test_addresses_of_names_off_the_chain_are_not_taken() -> None:
    message = respond(
        "www.example.com 300 CNAME edge.example.net",
        "other.example.net 60 A 203.0.113.9",
        "www.example.com 60 A 203.0.113.8",
        "edge.example.net 60 A 192.0.2.1",
    )
    assert parse_answer(message.to_wire(), 7, WIRE, A).addresses == (b"\xc0\0\2\1",)


def test_a_chain_that_does_not_start_at_the_question_gives_nothing() -> None:
    message = respond("evil.example 60 CNAME edge.example.net", "edge.example.net 60 A 192.0.2.1")
    assert parse_answer(message.to_wire(), 7, WIRE, A).addresses == ()


def test_addresses_of_the_other_family_are_not_taken() -> None:
    message = respond("www.example.com 60 AAAA 2001:db8::1", "www.example.com 60 A 192.0.2.1", question="AAAA")
    assert parse_answer(message.to_wire(), 7, WIRE, AAAA).addresses == (bytes.fromhex("20010db8" + "00" * 11 + "01"),)


def test_repeats_are_taken_once_and_not_more_than_the_bound() -> None:
    records = [f"www.example.com 60 A 192.0.{2 + i // 200}.{i % 200}" for i in range(100)]
    message = respond(*records, records[0])
    addresses = parse_answer(message.to_wire(), 7, WIRE, A).addresses
    assert len(addresses) == len(set(addresses)) == ADDRESSES_MAX


def test_chains_in_a_circle_or_too_long_are_refused() -> None:
    circle = respond("www.example.com 60 CNAME b.example", "b.example 60 CNAME www.example.com")
    names = ["www.example.com", *(f"n{i}.example" for i in range(20))]
    long = respond(*(f"{a} 60 CNAME {b}" for a, b in pairwise(names)))
    for message in (circle, long):
        with pytest.raises(DnsFormatError, match="chain"):
            parse_answer(message.to_wire(), 7, WIRE, A)


@pytest.mark.parametrize(
    ("soa", "ttl_s"),
    [
        ("example.com 900 SOA ns.example.com host.example.com 1 2 3 4 30", 30),
        ("example.com 20 SOA ns.example.com host.example.com 1 2 3 4 30", 20),
        (None, None),
    ],
)
def test_negative_answers_take_their_time_from_the_soa(soa: str | None, ttl_s: int | None) -> None:
    message = respond(rcode=dns.rcode.NXDOMAIN, authority=() if soa is None else (soa,))
    answer = parse_answer(message.to_wire(), 7, WIRE, A)
    assert (answer.response_code, answer.addresses, answer.ttl_s) == (3, (), ttl_s)


def test_addresses_in_a_failure_are_not_taken() -> None:
    message = respond("www.example.com 60 A 192.0.2.1", rcode=dns.rcode.SERVFAIL)
    answer = parse_answer(message.to_wire(), 7, WIRE, A)
    assert (answer.response_code, answer.addresses) == (2, ())


def spoil(message: dns.message.Message, at: int, value: bytes) -> bytes:
    wire = message.to_wire()
    return wire[:at] + value + wire[at + len(value) :]


@pytest.mark.parametrize(
    "message",
    [
        spoil(respond("www.example.com 60 A 192.0.2.1"), 0, b"\0\x08"),
        spoil(respond("www.example.com 60 A 192.0.2.1"), 2, b"\x01"),
        spoil(respond("www.example.com 60 A 192.0.2.1"), 4, b"\0\0"),
        spoil(respond("www.example.com 60 A 192.0.2.1"), 13, b"vvv"),
        respond("www.example.com 60 A 192.0.2.1", question="AAAA").to_wire(),
        respond("www.example.com 60 A 192.0.2.1").to_wire()[:-1],
        respond("www.example.com 60 A 192.0.2.1").to_wire()[:20],
    ],
    ids=["id", "a query", "no question", "another name", "another type", "cut off", "cut off in the question"],
)
def test_what_does_not_answer_the_question_is_refused(message: bytes) -> None:
    for parse in (parse_answer, parse_relayed_answer):
        with pytest.raises(DnsFormatError):
            parse(message, 7, WIRE, A)


def test_the_question_may_come_back_in_another_case() -> None:
    message = spoil(respond("www.example.com 60 A 192.0.2.1"), 13, b"WwW")
    assert parse_answer(message, 7, WIRE, A).addresses == (b"\xc0\0\2\1",)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_question_give_an_answer_or_the_typed_error(tail: bytes) -> None:
    head = b"\0\7\x81\x80\0\1\0\2\0\1\0\1" + WIRE + b"\0\1\0\1"
    for parse in (parse_answer, parse_relayed_answer):
        try:
            parse(head + tail, 7, WIRE, A)
        except DnsFormatError:
            continue


@given(st.data())
def test_answers_with_changed_bytes_give_an_answer_or_the_typed_error(data: st.DataObject) -> None:
    wire = respond("www.example.com 60 CNAME e.example.net", "e.example.net 60 A 192.0.2.1").to_wire()
    at = data.draw(st.integers(0, len(wire) - 1))
    changed = wire[:at] + data.draw(st.binary(min_size=1, max_size=3)) + wire[at + 1 :]
    for parse in (parse_answer, parse_relayed_answer):
        try:
            parse(changed, 7, WIRE, A)
        except DnsFormatError:
            continue


def test_too_many_records_are_refused() -> None:
    message = respond(*(f"www.example.com 60 A 10.{i // 250}.{i % 250}.1" for i in range(600)))
    for parse in (parse_answer, parse_relayed_answer):
        with pytest.raises(DnsFormatError, match="more records"):
            parse(message.to_wire(max_size=65535), 7, WIRE, A)


def test_truncated_answers_say_so() -> None:
    wire = spoil(respond(), 2, b"\x83")
    assert parse_answer(wire, 7, WIRE, A).is_truncated
    assert parse_relayed_answer(wire, 7, WIRE, A).is_truncated
