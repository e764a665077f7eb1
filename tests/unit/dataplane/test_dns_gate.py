"""The DNS gate's decisions and their order: what goes upstream, what is pinned when, what the devbox hears."""

import errno
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import pytest

from outgate.dataplane.dns_gate import OUTSTANDING_PER_DEVBOX_MAX, DeniedAnswer
from outgate.dataplane.dns_lookup import UpstreamFailure
from outgate.model.desired import GateApply
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name
from outgate.wire.dns_answer import Answer, RelayedAnswer, parse_relayed_answer
from support.dns_server import make_records
from support.gate_harness import FakeClient, Harness, devbox, document, packed_answer
from support.policies import make_policy


def test_a_denied_name_gets_nxdomain_with_the_reason_and_never_goes_upstream() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("secret.attacker.example")
    assert client.code == "NXDOMAIN"
    assert harness.upstream.asked == []
    (option,) = client.message.options
    assert isinstance(option, dns.edns.EDEOption)
    assert option.code == 15
    assert "secret.attacker.example" in client.error_text
    assert "'ci'" in client.error_text
    (soa,) = client.message.authority
    assert soa.ttl == 0


def test_the_setting_makes_it_refused() -> None:
    harness = Harness(make_policy("example.com"), denied_answer=DeniedAnswer.REFUSED)
    assert harness.ask("attacker.example").code == "REFUSED"
    assert harness.upstream.asked == []


@pytest.mark.parametrize("name", ["WWW.Example.COM", "www.example.com.", "www.example.com"])
def test_an_allowed_name_goes_upstream_in_one_spelling(name: str) -> None:
    harness = Harness(make_policy("*.example.com"))
    client = harness.ask(name)
    (question,) = harness.upstream.asked
    assert (question.wire_name, question.record_type) == (b"\3www\7example\3com\0", 1)
    harness.answer("93.184.216.1")
    assert client.addresses == {"93.184.216.1"}
    assert client.message.question[0].name.to_text() == name.rstrip(".") + "."


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "MX", "TXT", "ANY", "NS", "PTR", "AXFR"])
def test_other_types_of_allowed_names_are_empty_and_stay_here(kind: str) -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com", kind)
    assert (client.code, client.message.answer) == ("NOERROR", [])
    assert len(client.message.authority) == 1
    assert harness.upstream.asked == []


def test_other_types_of_other_names_are_denied() -> None:
    assert Harness(make_policy("example.com")).ask("attacker.example", "TXT").code == "NXDOMAIN"


def test_names_that_are_no_host_names_are_denied() -> None:
    harness = Harness(make_policy("*.example.com"))
    client = harness.ask("a\\.b.example.com")
    assert client.code == "NXDOMAIN"
    assert "no host name" in client.error_text
    assert harness.upstream.asked == []


def test_another_class_is_refused() -> None:
    harness = Harness(make_policy(allow_all=True))
    client = FakeClient()
    harness.gate.handle(dns.message.make_query("version.bind", "TXT", "CH").to_wire(), harness.entry(), client)
    assert client.code == "REFUSED"
    assert harness.upstream.asked == []


def test_a_malformed_query_is_refused_and_a_response_ignored() -> None:
    harness = Harness(make_policy("example.com"))
    client = FakeClient()
    harness.gate.handle(dns.message.make_query("example.com", "A").to_wire() + b"!", harness.entry(), client)
    assert client.code == "FORMERR"
    silent = FakeClient()
    response = dns.message.make_response(dns.message.make_query("example.com", "A"))
    harness.gate.handle(response.to_wire(), harness.entry(), silent)
    assert silent.replies == []


def test_the_answer_waits_for_the_kernel() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.upstream.answer(packed_answer("93.184.216.1", "93.184.216.2"))
    assert client.replies == []
    assert harness.sets.pins == {}
    harness.end_turn()
    assert harness.sets.addresses("og1") == {ip_address("93.184.216.1"), ip_address("93.184.216.2")}
    assert client.addresses == {"93.184.216.1", "93.184.216.2"}
    assert harness.sets.pins["og1", ip_address("93.184.216.1")].names == ("example.com",)


def test_one_turn_is_one_transaction() -> None:
    harness = Harness(make_policy("*.example.com"))
    clients = [harness.ask(f"n{i}.example.com") for i in range(5)]
    for i in range(5):
        harness.upstream.answer(packed_answer(f"93.184.216.{i}"))
    harness.end_turn()
    assert len(harness.sets.transactions) == 1
    assert [client.addresses for client in clients] == [{f"93.184.216.{i}"} for i in range(5)]


def test_pins_that_last_are_not_written_again() -> None:
    harness = Harness(make_policy("example.com"))
    harness.ask("example.com")
    harness.answer("93.184.216.1")
    again = harness.ask("example.com")
    assert again.addresses == {"93.184.216.1"}  # at once: from the cache, and the kernel has the pin
    assert len(harness.sets.transactions) == 1
    assert len(harness.upstream.asked) == 1


def test_a_second_answer_of_the_turn_that_brings_a_pin_waits_too() -> None:
    harness = Harness(make_policy("a.example", "b.example"))
    first, second = harness.ask("a.example"), harness.ask("b.example")
    harness.upstream.answer(packed_answer("93.184.216.1"))
    harness.upstream.answer(packed_answer("93.184.216.1"))
    assert first.replies == second.replies == []
    harness.end_turn()
    assert first.addresses == second.addresses == {"93.184.216.1"}


def test_pins_are_per_devbox_and_answers_are_not() -> None:
    harness = Harness(make_policy("example.com"), devboxes=[devbox(1), devbox(2)])
    harness.ask("example.com", number=1)
    harness.answer("93.184.216.1")
    assert harness.sets.addresses("og2") == set()
    second = harness.ask("example.com", number=2)
    assert second.replies == []
    harness.end_turn()
    assert second.addresses == {"93.184.216.1"}
    assert harness.sets.addresses("og2") == {ip_address("93.184.216.1")}
    assert len(harness.upstream.asked) == 1


def test_if_the_kernel_refuses_the_query_fails_and_nothing_counts_as_taught() -> None:
    harness = Harness(make_policy("example.com"))
    harness.sets.refusal = errno.ENFILE
    client = harness.ask("example.com")
    harness.answer("93.184.216.1")
    assert client.code == "SERVFAIL"
    assert harness.table.pins.names_of("dbx_1", ip_address("93.184.216.1"), harness.clock.now_s) == ()
    assert [code for code, text in harness.warnings if text] == ["pins_not_written"]
    harness.sets.refusal = None
    again = harness.ask("example.com")
    harness.end_turn()
    assert again.addresses == {"93.184.216.1"}
    assert harness.warnings[-1] == ("pins_not_written", "")


def test_the_same_question_is_asked_once_however_many_wait() -> None:
    harness = Harness(make_policy("example.com"), devboxes=[devbox(1), devbox(2)])
    clients = [harness.ask("example.com", number=number) for number in (1, 1, 2)]
    assert len(harness.upstream.asked) == 1
    harness.answer("93.184.216.1")
    assert [client.addresses for client in clients] == [{"93.184.216.1"}] * 3


@pytest.mark.parametrize(("given_s", "shown_s"), [(0, 5), (1, 5), (60, 60), (86400, 3600)])
def test_ttls_are_clamped(given_s: int, shown_s: int) -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.answer("93.184.216.1", ttl_s=given_s)
    assert client.message.answer[0].ttl == shown_s


def test_a_cached_answer_shows_the_time_that_is_left_and_then_ends() -> None:
    harness = Harness(make_policy("example.com"))
    harness.ask("example.com")
    harness.answer("93.184.216.1", ttl_s=30)
    harness.wait(20)
    assert harness.ask("example.com").message.answer[0].ttl == 10
    harness.wait(10)
    assert harness.ask("example.com").replies == []
    assert len(harness.upstream.asked) == 2


def test_addresses_on_the_floor_are_left_out() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.answer("169.254.169.254", "93.184.216.34", "10.0.0.1")
    assert client.addresses == {"93.184.216.34"}
    assert harness.sets.addresses("og1") == {ip_address("93.184.216.34")}


def test_an_answer_of_floor_addresses_alone_is_empty_and_says_why() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.answer("10.0.0.1")
    assert (client.code, client.message.answer) == ("NOERROR", [])
    assert "private address" in client.error_text
    assert harness.sets.transactions == []
    harness.wait(1)
    assert {(record.verdict, record.reason, record.address) for record in harness.records} == {
        ("allow", "hostname", ""),
        ("deny", "floor_private", "10.0.0.1"),
    }


def test_private_answers_pass_where_the_operator_or_a_rule_says_so() -> None:
    zone = HostContext(internal_zones=(parse_domain_name("corp.example"),))
    harness = Harness(make_policy("git.corp.example", "db.other.example", cidrs=["10.1.0.0/16 tcp/5432"]), context=zone)
    inside = harness.ask("git.corp.example")
    harness.answer("10.0.0.1", "127.0.0.1")
    assert inside.addresses == {"10.0.0.1"}
    by_rule = harness.ask("db.other.example")
    harness.answer("10.1.2.3", "10.2.2.3")
    assert by_rule.addresses == {"10.1.2.3"}


def test_the_hosts_own_addresses_are_never_given() -> None:
    harness = Harness(make_policy("example.com"))
    harness.table.apply(GateApply(revision=2, full=False, host_addresses=("93.184.216.34",)))
    client = harness.ask("example.com")
    harness.answer("93.184.216.34")
    assert (client.code, client.message.answer) == ("NOERROR", [])


def test_a_wildcard_gives_256_names_an_hour() -> None:
    harness = Harness(make_policy("*.example.com", "exact.example.com"))
    for i in range(256):
        harness.ask(f"n{i}.example.com")
        harness.upstream.answer(UpstreamFailure("not now"))
    client = harness.ask("one-more.example.com")
    assert client.code == "NXDOMAIN"
    assert len(harness.upstream.asked) == 256
    assert harness.ask("n0.example.com").replies == []
    assert harness.ask("exact.example.com").replies == []
    harness.wait(1)
    harness.wait(1)
    assert [record.reason for record in harness.records if record.verdict == "deny"] == ["wildcard_budget"]


def test_a_failure_upstream_is_servfail_with_the_reason() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.upstream.answer(UpstreamFailure("no upstream resolver answered in time"))
    assert client.code == "SERVFAIL"
    assert client.error_text == "no upstream resolver answered in time"


@pytest.mark.parametrize(("code", "shown"), [(0, "NOERROR"), (3, "NXDOMAIN")])
def test_names_without_addresses(code: int, shown: str) -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.upstream.answer(Answer(code, (), 30))
    assert (client.code, client.message.answer) == (shown, [])
    assert harness.ask("example.com").code == shown
    assert len(harness.upstream.asked) == 1


def test_a_devbox_has_a_bound_on_what_waits_and_others_do_not_feel_it() -> None:
    policy = make_policy("*.example.com")
    harness = Harness(policy, devboxes=[devbox(1), devbox(2)])
    for i in range(OUTSTANDING_PER_DEVBOX_MAX):
        harness.ask(f"n{i}.example.com", number=1)
    assert harness.ask("over.example.com", number=1).code == "SERVFAIL"
    assert harness.ask("other.example.com", number=2).replies == []
    assert len(harness.upstream.asked) == OUTSTANDING_PER_DEVBOX_MAX + 1
    harness.answer("93.184.216.1")
    assert harness.ask("over.example.com", number=1).replies == []


# -- the table changes


def narrow(harness: Harness, *hostnames: str, allow_all: bool = False) -> None:
    policy = document(make_policy(*hostnames, allow_all=allow_all))
    harness.table.apply(GateApply(revision=2, full=False, policies=(policy,)))


def test_an_answer_that_comes_after_the_name_was_removed_is_not_given() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    narrow(harness, "other.example")
    harness.answer("93.184.216.1")
    assert client.code == "NXDOMAIN"
    assert harness.sets.transactions == []
    assert harness.table.pins.names_of("dbx_1", ip_address("93.184.216.1"), harness.clock.now_s) == ()


def test_an_answer_of_allow_all_that_comes_late_is_not_relayed() -> None:
    harness = Harness(make_policy(allow_all=True))
    client = harness.ask("example.com", "MX")
    narrow(harness, "example.com")
    harness.upstream.answer(RelayedAnswer(0x8180, (0, 0, 0), b"", (), 0))
    assert (client.code, client.message.answer) == ("NOERROR", [])


def test_a_devbox_that_ended_gets_no_answer_and_no_pin() -> None:
    harness = Harness(make_policy("example.com"))
    client = harness.ask("example.com")
    harness.table.apply(GateApply(revision=2, full=False, devboxes_removed=("dbx_1",)))
    harness.answer("93.184.216.1")
    assert client.replies == []
    assert harness.sets.transactions == []


def test_a_widened_policy_is_seen_by_the_next_lookup() -> None:
    harness = Harness(make_policy("a.example"))
    assert harness.ask("b.example").code == "NXDOMAIN"
    narrow(harness, "a.example", "b.example")
    client = harness.ask("b.example")
    harness.answer("93.184.216.1")
    assert client.addresses == {"93.184.216.1"}


# -- allow_all


def upstream_answer(kind: str, *data: str) -> RelayedAnswer:
    query = dns.message.make_query("example.com", kind, id=5)
    response = dns.message.make_response(query)
    response.answer.append(make_records("example.com", 300, kind, data))
    return parse_relayed_answer(response.to_wire(), 5, b"\7example\3com\0", query.question[0].rdtype)


def test_under_allow_all_every_type_is_asked_and_relayed_and_nothing_is_taught() -> None:
    harness = Harness(make_policy(allow_all=True))
    client = harness.ask("example.com", "MX")
    harness.upstream.answer(upstream_answer("MX", "10 mail.example.com"))
    assert client.addresses == {"10 mail.example.com."}
    address = harness.ask("example.com", "A")
    harness.upstream.answer(upstream_answer("A", "93.184.216.1"))
    assert address.addresses == {"93.184.216.1"}
    harness.end_turn()
    assert harness.sets.transactions == []
    assert harness.table.pins.names_of("dbx_1", ip_address("93.184.216.1"), harness.clock.now_s) == ()
    assert all(question.is_relayed for question in harness.upstream.asked)


def test_under_allow_all_names_that_are_no_host_names_are_asked_too() -> None:
    harness = Harness(make_policy(allow_all=True))
    harness.ask("My\\032Printer._ipp._tcp.example.com", "SRV")
    harness.ask(".", "NS")
    assert [question.wire_name for question in harness.upstream.asked] == [
        b"\x0amy printer\4_ipp\4_tcp\7example\3com\0",
        b"\0",
    ]


def test_answers_of_allow_all_do_not_serve_policies_with_names() -> None:
    everything, names = make_policy(allow_all=True), make_policy("example.com", policy_id="npol_2", number=17)
    harness = Harness(everything, names, devboxes=[devbox(1), devbox(2, "npol_2")])
    harness.ask("example.com", number=1)
    harness.upstream.answer(upstream_answer("A", "93.184.216.1"))
    harness.ask("example.com", number=2)
    assert [question.is_relayed for question in harness.upstream.asked] == [True, False]


# -- records


def test_every_denial_and_each_first_permission_is_recorded_and_repeats_are_gathered() -> None:
    harness = Harness(make_policy("example.com"))
    for _ in range(3):
        harness.ask("attacker.example")
        harness.ask("attacker.example", "AAAA")
        harness.ask("example.com")
        harness.ask("example.com", "AAAA")
    harness.wait(1)
    seen = [(r.verdict, r.name, r.reason, r.point, r.devbox_id, r.policy_id, r.revision) for r in harness.records]
    assert seen == [
        ("deny", "attacker.example", "name_not_allowed", "dns", "dbx_1", "npol_1", 1),
        ("allow", "example.com", "hostname", "dns", "dbx_1", "npol_1", 1),
    ]
    assert harness.records[1].rule == "allowed_hostnames[0] example.com"
    harness.wait(10)
    harness.ask("attacker.example")
    harness.wait(1)
    assert "5 more" in harness.records[2].sentence


def test_replies_may_be_used_again_only_while_they_hold() -> None:
    harness = Harness(make_policy("example.com"))
    assert harness.ask("attacker.example").ready_s == [1.0]
    client = harness.ask("example.com")
    harness.upstream.answer(UpstreamFailure("gone"))
    assert client.ready_s == [0]
    harness.ask("example.com")
    harness.answer("93.184.216.1", ttl_s=5)
    harness.wait(4.5)
    assert harness.ask("example.com").ready_s == [0.5]


def test_where_the_policy_only_reports_a_denied_name_is_asked_pinned_and_told() -> None:
    harness = Harness(make_policy("example.com", report_only=True))
    client = harness.ask("secret.attacker.example")
    harness.answer("93.184.216.1")
    assert client.addresses == {"93.184.216.1"}
    pinned = ip_address("93.184.216.1")
    assert harness.sets.addresses(harness.entry().link) == {pinned}
    assert harness.table.pins.names_of("dbx_1", pinned, harness.clock.now_s) == ("secret.attacker.example",)
    harness.wait(1.0)
    assert [(record.verdict, record.reason, record.name) for record in harness.records] == [
        ("report_only", "name_not_allowed", "secret.attacker.example")
    ]


def test_where_the_policy_only_reports_private_answers_stay_out() -> None:
    harness = Harness(make_policy(report_only=True))
    client = harness.ask("secret.attacker.example")
    harness.answer("10.1.2.3", "169.254.169.254")
    assert (client.code, client.addresses) == ("NOERROR", set())


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
def test_where_the_policy_only_reports_nothing_may_hide_the_name_of_a_handshake(kind: str) -> None:
    harness = Harness(make_policy(report_only=True))
    client = harness.ask("example.com", kind)
    assert (client.code, client.message.answer, harness.upstream.asked) == ("NOERROR", [], [])


def test_where_the_policy_only_reports_other_types_are_relayed() -> None:
    harness = Harness(make_policy("example.com", report_only=True))
    for name in ("example.com", "attacker.example"):
        client = harness.ask(name, "TXT")
        harness.upstream.answer(upstream_answer("TXT", '"hello"'))
        assert "hello" in client.message.answer[0].to_text()
    harness.wait(1.0)
    assert [(record.verdict, record.name) for record in harness.records] == [
        ("allow", "example.com"),
        ("report_only", "attacker.example"),
    ]


def test_where_the_policy_only_reports_a_spent_wildcard_goes_on_giving() -> None:
    harness = Harness(make_policy("*.example.com", report_only=True))
    for number in range(300):
        client = harness.ask(f"n{number}.example.com")
        harness.answer("93.184.216.1")
        assert client.code == "NOERROR"
    # Two batches.
    harness.wait(1.0)
    harness.wait(1.0)
    assert {record.reason for record in harness.records if record.verdict == "report_only"} == {"wildcard_budget"}
