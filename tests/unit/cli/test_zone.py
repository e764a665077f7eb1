"""The little internet's DNS, read back by an independent codec."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from outgate.cli.demo.control import ForeignRecord, Section, SetRecords
from outgate.cli.demo.zone import find_records, parse_question, render_answer, render_format_error

ZONE = {
    "both.example.org": SetRecords("both.example.org", addresses=("45.45.45.1", "2a0f:4444::1"), ttl_s=7),
    "alias.example.org": SetRecords("alias.example.org", cname="both.example.org", ttl_s=5),
    "*.wild.example.org": SetRecords("*.wild.example.org", addresses=("45.45.45.2",)),
    "loop.example.org": SetRecords("loop.example.org", cname="loop.example.org"),
    "foreign.example.org": SetRecords(
        "foreign.example.org",
        addresses=("45.45.45.1",),
        foreign=tuple(ForeignRecord(section, "other.example.org", 1, "2d2d2d09") for section in Section),
    ),
    "text.example.org": SetRecords("text.example.org", raw=((16, "0568656c6c6f"),)),
}


def _ask(name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind, id=4711)
    message = query.to_wire()
    question = parse_question(message)
    assert question is not None
    answer = dns.message.from_wire(render_answer(message, question, ZONE))
    assert query.is_response(answer)
    return answer


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("both.example.org", "A", ["7 A 45.45.45.1"]),
        ("BOTH.example.org", "AAAA", ["7 AAAA 2a0f:4444::1"]),
        ("alias.example.org", "A", ["5 CNAME both.example.org.", "7 A 45.45.45.1"]),
        ("x.y.wild.example.org", "A", ["60 A 45.45.45.2"]),
        ("both.example.org", "MX", []),
        ("text.example.org", "TXT", ['60 TXT "hello"']),
    ],
)
def test_an_answer_holds_the_records_of_the_name(name: str, kind: str, expected: list[str]) -> None:
    answer = _ask(name, kind)
    assert answer.rcode() == dns.rcode.NOERROR
    found = [
        f"{rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text()}"
        for rrset in answer.answer
        for rdata in rrset
    ]
    assert found == expected


def test_foreign_records_come_along_in_their_sections() -> None:
    answer = _ask("foreign.example.org", "A")
    expected = "other.example.org. 60 IN A 45.45.45.9"
    for section in (answer.answer, answer.authority, answer.additional):
        assert expected in [rrset.to_text() for rrset in section]
    assert [len(section) for section in (answer.answer, answer.authority, answer.additional)] == [2, 1, 1]


def test_a_name_without_records_does_not_exist() -> None:
    assert _ask("nobody.example.org", "A").rcode() == dns.rcode.NXDOMAIN


def test_a_wildcard_does_not_cover_its_own_apex() -> None:
    assert find_records(ZONE, "wild.example.org") is None


def test_a_chain_that_loops_ends() -> None:
    assert len(_ask("loop.example.org", "A").answer[0]) == 1


@pytest.mark.parametrize("message", [b"", b"\0" * 12, b"\0" * 11, b"\x12\x34\x80\0\0\1" + b"\0" * 6 + b"\1a\0\0\1\0\1"])
def test_what_is_not_one_question_is_none(message: bytes) -> None:
    assert parse_question(message) is None


def test_a_pointer_in_a_question_is_refused() -> None:
    assert parse_question(b"\0\1\1\0\0\1" + b"\0" * 6 + b"\xc0\x0c\0\1\0\1") is None


def test_a_format_error_says_so() -> None:
    answer = dns.message.from_wire(render_format_error(b"\x12\x34rest"))
    assert (answer.id, answer.rcode()) == (0x1234, dns.rcode.FORMERR)
