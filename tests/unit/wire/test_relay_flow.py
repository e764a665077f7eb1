"""The states of a relayed connection, as a dialogue of events and commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.flow import BadHandshake, HttpRequest, Opaque, TlsHello
from outgate.model.names import DomainName
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, ReportOnly, RuleRef
from outgate.wire.first_bytes import FIRST_BYTES_MAX
from outgate.wire.http1_page import RefusalStatus
from outgate.wire.relay_commands import (
    ABANDON,
    DIAL_CHOSEN,
    FINISH_UPSTREAM,
    PASS_BOTH,
    PASS_DOWN,
    PASS_REQUESTS,
    Command,
    Commands,
    Dial,
    Judge,
    Refuse,
    Report,
    SendUpstream,
)
from outgate.wire.relay_flow import HANDSHAKE_S_MAX, FlowPhase, RelayFlow
from support.hellos import hello

A, B = DomainName("a.test"), DomainName("b.test")
GET_A = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
GET_B = b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"
SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + b"r" * 32 + b"\x20"
RETRY_REQUEST = SERVER_HELLO.replace(
    b"r" * 32, bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
)
OK2 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BY_NAME = Allow(AllowReason.HOSTNAME, RuleRef("allowed_hostnames", 0, "a.test"), "covered")
BY_ADDRESS = Allow(AllowReason.ADDRESS_BOUND, RuleRef("allowed_hostnames", 0, "a.test"), "by address")
BY_CIDR = Allow(AllowReason.CIDR, RuleRef("allowed_cidrs", 0, "0.0.0.0/0"), "by network")
NO = Deny(DenyReason.NAME_NOT_ALLOWED, "not covered")


def late(*, now_s: float = 100.0) -> RelayFlow:
    """A flow to port 443 or 80."""
    return RelayFlow(opens_early=False, now_s=now_s)


def early() -> RelayFlow:
    """A flow to a port where the server may speak first, its upstream open."""
    flow = RelayFlow(opens_early=True, now_s=100.0)
    assert flow.begin() == (DIAL_CHOSEN,)
    assert flow.upstream_opened() == (PASS_DOWN,)
    return flow


def refusal(commands: Commands) -> Refuse:
    (command,) = commands
    assert isinstance(command, Refuse)
    return command


def requesting() -> RelayFlow:
    """A flow in phase REQUESTS whose first request, to a.test, went out."""
    flow = late()
    assert flow.receive(GET_A, 100.0) == (Judge(HttpRequest(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == (DIAL_CHOSEN,)
    assert flow.upstream_opened() == (PASS_REQUESTS, SendUpstream(GET_A))
    assert flow.phase is FlowPhase.REQUESTS
    return flow


# TLS and opaque flows


def test_nothing_goes_out_before_the_verdict_and_then_the_hello_as_received() -> None:
    flow, data = late(), hello("a.test", pad=2000)
    assert flow.begin() == ()
    assert flow.receive(data[:700], 100.0) == ()
    assert flow.receive(data[700:], 100.1) == (Judge(TlsHello(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == (DIAL_CHOSEN,)
    assert flow.upstream_opened() == (SendUpstream(data),)
    assert flow.responded(SERVER_HELLO) == (PASS_BOTH,)
    assert (flow.phase, flow.name, flow.handshake) == (FlowPhase.PASSING, A, TlsHello(A))


def test_a_name_that_the_address_was_not_taught_for_is_dialled_itself() -> None:
    flow = late()
    flow.receive(hello("b.test"), 100.0)
    assert flow.judged(BY_NAME, is_taught=False) == (Dial(B),)


@pytest.mark.parametrize("first", [hello("b.test"), b"\x00\x01", b"SSH-2.0-x\r\n"], ids=["TLS", "binary", "text"])
def test_denied_is_a_reset(first: bytes) -> None:
    flow = late()
    flow.receive(first, 100.0)
    assert refusal(flow.judged(NO, is_taught=False)) == Refuse(NO, None)
    assert flow.phase is FlowPhase.OVER
    assert flow.receive(hello("a.test"), 100.0) == ()


EARLY_DATA = b"\x17\x03\x03\x00\x02hi"


def test_early_data_behind_the_hello_goes_with_it() -> None:
    flow = late()
    flow.receive(hello("a.test") + EARLY_DATA, 100.0)
    flow.judged(BY_NAME, is_taught=True)
    assert flow.upstream_opened() == (SendUpstream(hello("a.test")), SendUpstream(EARLY_DATA))
    assert flow.receive(EARLY_DATA, 100.0) == (SendUpstream(EARLY_DATA),)


def hello_sent() -> RelayFlow:
    """A flow whose hello, to a.test, went out."""
    flow = late()
    flow.receive(hello("a.test"), 100.0)
    flow.judged(BY_NAME, is_taught=True)
    assert flow.upstream_opened() == (SendUpstream(hello("a.test")),)
    assert (flow.phase, flow.wants_client) == (FlowPhase.HELLO_SENT, True)
    return flow


def test_a_second_hello_for_the_same_host_goes_on() -> None:
    flow = hello_sent()
    assert flow.responded(RETRY_REQUEST) == ()
    assert flow.receive(hello("A.test"), 100.0) == (SendUpstream(hello("A.test")), PASS_BOTH)
    assert flow.phase is FlowPhase.PASSING


def test_a_second_hello_for_another_host_is_a_reset() -> None:
    asked = hello_sent()
    asked.responded(RETRY_REQUEST)
    for flow in (asked, hello_sent()):
        assert refusal(flow.receive(hello("b.test"), 100.0)).deny.reason is DenyReason.BAD_HANDSHAKE
        assert flow.phase is FlowPhase.OVER
        assert flow.receive(hello("a.test"), 100.0) == ()
    flow = late()
    flow.receive(hello("a.test") + hello("b.test"), 100.0)
    flow.judged(BY_NAME, is_taught=True)
    assert refusal(flow.upstream_opened()[1:]).deny.reason is DenyReason.BAD_HANDSHAKE


def test_ends_of_either_side_behind_the_hello_are_passed_on() -> None:
    assert hello_sent().client_finished() == (FINISH_UPSTREAM,)
    flow = hello_sent()
    assert flow.server_finished() == (PASS_BOTH,)
    assert flow.phase is FlowPhase.PASSING


def test_what_passed_by_its_address_is_never_vouched_for_by_a_name() -> None:
    for first in (hello("b.test"), GET_B, b"GET / nonsense HTTP/1.1\r\n\r\n"):
        flow = late()
        flow.receive(first, 100.0)
        assert flow.judged(BY_CIDR, is_taught=False) == (DIAL_CHOSEN,)
        assert flow.upstream_opened() == (SendUpstream(first), PASS_BOTH)
        assert flow.name is None
        assert isinstance(flow.handshake, BadHandshake)


# Time and size


def test_first_bytes_that_never_come_are_overdue() -> None:
    flow = late(now_s=100.0)
    assert flow.deadline_s == 100.0 + HANDSHAKE_S_MAX
    assert flow.expire(flow.deadline_s - 0.001) == ()
    assert refusal(flow.expire(flow.deadline_s)).deny.reason is DenyReason.HANDSHAKE_TIMEOUT


def test_dripping_does_not_extend_the_time() -> None:
    flow, data = late(now_s=100.0), hello("a.test")
    for second in range(1, 10):
        assert flow.receive(data[second : second + 1] if second > 1 else data[:2], 100.0 + second) == ()
    assert refusal(flow.expire(100.0 + HANDSHAKE_S_MAX)) == Refuse(
        Deny(DenyReason.HANDSHAKE_TIMEOUT, "The first bytes did not say what this is within 10 s."), None
    )


def test_an_overdue_request_gets_a_page() -> None:
    flow = late()
    flow.receive(b"GET / HTTP/1.1\r\nHost: a.test\r\n", 100.0)
    answer = refusal(flow.expire(200.0)).answer
    assert answer is not None
    assert answer.status is RefusalStatus.FORBIDDEN


def test_where_the_server_may_speak_first_time_runs_from_the_clients_first_byte() -> None:
    flow = early()
    assert flow.deadline_s is None
    assert flow.expire(10_000.0) == ()
    flow.receive(b"\x16", 10_000.0)
    assert flow.expire(10_009.9) == ()
    assert refusal(flow.expire(10_010.0)).deny.reason is DenyReason.HANDSHAKE_TIMEOUT


LONG = {
    "a hello in one long message": hello("a.test", pad=19_000),
    "a hello in many records": hello("a.test", pad=12_000, fragment=8),
    "a line without an end": b"x" * 20_000,
    "a request head without an end": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000,
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("step", [1, 1000, 16_384, 30_000])
def test_too_long(data: bytes, step: int) -> None:
    flow = late()
    for start in range(0, len(data), step):
        commands = flow.receive(data[start : start + step], 100.0)
        if commands:
            break
    assert refusal(commands).deny.reason is DenyReason.HANDSHAKE_TOO_LONG
    assert start <= FIRST_BYTES_MAX


# Servers that speak first


def test_a_server_may_speak_before_the_client() -> None:
    flow = early()
    flow.server_heard()
    assert flow.handshake == Opaque()
    assert flow.receive(b"EHLO box\r\n", 101.0) == (Judge(Opaque()),)
    assert flow.judged(BY_ADDRESS, is_taught=False) == (SendUpstream(b"EHLO box\r\n"), PASS_BOTH)


def test_a_name_of_this_address_keeps_the_connection() -> None:
    flow = early()
    flow.receive(hello("a.test"), 101.0)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(hello("a.test")),)


def test_another_name_is_dialled_instead_while_the_server_is_silent() -> None:
    flow = early()
    flow.receive(hello("b.test"), 101.0)
    assert flow.judged(BY_NAME, is_taught=False) == (Dial(B),)
    assert flow.upstream_opened() == (SendUpstream(hello("b.test")),)


def test_another_name_is_refused_once_the_server_was_heard() -> None:
    flow = early()
    flow.server_heard()
    flow.receive(hello("b.test"), 101.0)
    assert refusal(flow.judged(BY_NAME, is_taught=False)).deny.reason is DenyReason.NOT_RESOLVED


def test_the_verdict_may_come_before_the_connection() -> None:
    flow = RelayFlow(opens_early=True, now_s=100.0)
    flow.begin()
    flow.receive(b"EHLO box\r\n", 100.0)
    assert flow.judged(BY_ADDRESS, is_taught=False) == ()
    assert flow.upstream_opened() == (SendUpstream(b"EHLO box\r\n"), PASS_BOTH)


# Clients that finish


def test_a_client_that_leaves_without_a_word_is_nothing_to_report() -> None:
    assert late().client_finished() == (ABANDON,)


def test_a_client_that_only_listens_may_finish() -> None:
    flow = early()
    assert flow.client_finished() == (Judge(Opaque()),)
    assert flow.judged(BY_ADDRESS, is_taught=False) == (PASS_BOTH,)


@pytest.mark.parametrize("data", [hello("a.test")[:50], b"GET / HTTP/1.1\r\nHost: a", b"GET /"])
def test_a_client_that_finishes_inside_its_handshake_is_judged_as_bad(data: bytes) -> None:
    flow = late()
    flow.receive(data, 100.0)
    (command,) = flow.client_finished()
    assert isinstance(command, Judge)
    assert isinstance(command.handshake, BadHandshake)


def test_a_word_that_is_all_is_opaque() -> None:
    flow = early()
    assert flow.receive(b"ruok", 100.0) == ()
    assert flow.client_finished() == (Judge(Opaque()),)


# HTTP/1


def test_each_request_is_judged_before_it_goes_out() -> None:
    flow = requesting()
    assert flow.responded(OK2) == ()
    assert flow.receive(GET_A, 101.0) == (Judge(HttpRequest(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(GET_A),)


def test_pipelined_requests_are_judged_one_by_one_in_order() -> None:
    flow = requesting()
    assert flow.receive(GET_A + GET_A, 101.0) == (Judge(HttpRequest(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(GET_A), Judge(HttpRequest(A)))
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(GET_A),)


def test_a_first_request_that_is_denied_gets_a_page() -> None:
    flow = late()
    flow.receive(GET_B, 100.0)
    refused = refusal(flow.judged(NO, is_taught=False))
    assert refused.deny is NO
    assert refused.answer is not None
    assert (refused.answer.status, refused.answer.host, refused.answer.with_body) == (RefusalStatus.FORBIDDEN, B, True)


def test_the_page_for_head_has_no_body() -> None:
    flow = late()
    flow.receive(GET_B.replace(b"GET", b"HEAD"), 100.0)
    answer = refusal(flow.judged(NO, is_taught=False)).answer
    assert answer is not None
    assert not answer.with_body


def test_a_malformed_request_gets_a_400() -> None:
    flow = late()
    (command,) = flow.receive(b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 100.0)
    assert isinstance(command, Judge)
    assert isinstance(command.handshake, BadHandshake)
    answer = refusal(flow.judged(NO, is_taught=False)).answer
    assert answer is not None
    assert answer.status is RefusalStatus.BAD_REQUEST


def test_a_later_denied_request_is_answered_at_once_when_nothing_is_outstanding() -> None:
    flow = requesting()
    flow.responded(OK2)
    assert flow.receive(GET_B, 101.0) == (Judge(HttpRequest(B)),)
    assert refusal(flow.judged(NO, is_taught=False)).deny is NO


def test_a_later_denied_request_waits_for_the_earlier_response() -> None:
    flow = requesting()
    flow.receive(GET_B, 101.0)
    assert flow.judged(NO, is_taught=False) == ()
    assert not flow.wants_client
    assert flow.responded(OK2[:-1]) == ()
    assert refusal(flow.responded(OK2[-1:])).deny is NO


def test_a_denied_request_behind_a_response_without_an_end_finishes_the_connection() -> None:
    flow = requesting()
    flow.responded(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    flow.receive(GET_B, 101.0)
    assert flow.judged(NO, is_taught=False) == (FINISH_UPSTREAM,)


def test_another_allowed_host_is_misdirected_on_this_connection() -> None:
    flow = requesting()
    flow.responded(OK2)
    flow.receive(GET_B, 101.0)
    refused = refusal(flow.judged(BY_NAME, is_taught=True))
    assert refused.answer is not None
    assert refused.answer.status is RefusalStatus.MISDIRECTED


def test_a_later_malformed_request_is_refused_even_under_allow_all() -> None:
    flow = requesting()
    flow.responded(OK2)
    flow.receive(b"nonsense\r\n\r\n", 101.0)
    everything = Allow(AllowReason.ALLOW_ALL, RuleRef("allow_all"), "all")
    answer = refusal(flow.judged(everything, is_taught=True)).answer
    assert answer is not None
    assert answer.status is RefusalStatus.BAD_REQUEST


def test_a_bad_chunk_resets_because_half_of_the_request_is_out() -> None:
    flow = late()
    head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    flow.receive(head, 100.0)
    flow.judged(BY_NAME, is_taught=True)
    flow.upstream_opened()
    refused = refusal(flow.receive(b"zz\r\n", 101.0))
    assert (refused.answer, refused.deny.reason) == (None, DenyReason.BAD_HANDSHAKE)


def test_too_many_outstanding_requests_wait() -> None:
    flow = requesting()
    sent = 1
    commands = flow.receive(GET_A * 100, 101.0)
    while commands and isinstance(commands[-1], Judge):
        commands = flow.judged(BY_NAME, is_taught=True)
        sent += sum(isinstance(command, SendUpstream) for command in commands)
    assert (sent, flow.wants_client) == (64, False)
    commands = flow.responded(OK2 * 3)
    assert commands == (Judge(HttpRequest(A)),)


def upgrading() -> RelayFlow:
    flow = requesting()
    flow.responded(OK2)
    request = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    flow.receive(request + b"\x81\x02hi", 101.0)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(request),)
    assert not flow.wants_client
    return flow


def test_a_websocket_passes_after_the_101() -> None:
    flow = upgrading()
    response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    assert flow.responded(response) == (SendUpstream(b"\x81\x02hi"), PASS_BOTH)
    assert (flow.phase, flow.handshake) == (FlowPhase.PASSING, HttpRequest(A))


def test_without_a_101_the_bytes_behind_an_upgrade_are_the_next_request() -> None:
    flow = upgrading()
    commands = flow.responded(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
    assert commands == ()
    (command,) = flow.receive(b"\r\n", 102.0)
    assert isinstance(command, Judge)
    assert isinstance(command.handshake, BadHandshake)


@given(st.lists(st.integers(0, 200)))
def test_cuts_do_not_change_what_goes_upstream(cuts: list[int]) -> None:
    body = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20\r\n\r\n" + GET_B[:20]
    data = GET_A + body + GET_A + GET_B + GET_A
    flow, sent, start = late(), b"", 0
    judged: list[Command] = []

    def play(commands: Commands) -> bytes:
        out = b""
        for command in commands:
            match command:
                case Judge(handshake=handshake):
                    judged.append(command)
                    out += play(flow.judged(BY_NAME if handshake == HttpRequest(A) else NO, is_taught=True))
                case Dial():
                    out += play(flow.upstream_opened())
                case SendUpstream(data=data):
                    out += data
                case _:
                    pass
        return out

    for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
        if cut > start and flow.wants_client:
            sent += play(flow.receive(data[start:cut], 100.0))
            start = cut
    assert sent == GET_A + body + GET_A
    assert judged == [Judge(HttpRequest(host)) for host in (A, A, A, B)]


# Flows of a policy that only reports

REPORTED = ReportOnly(NO, RuleRef("enforcement"))


def reporting() -> RelayFlow:
    """A flow to any port, its upstream, which is the address that the box chose, open."""
    flow = RelayFlow(opens_early=True, now_s=100.0, is_reporting=True)
    assert flow.begin() == (DIAL_CHOSEN,)
    assert flow.upstream_opened() == (PASS_DOWN,)
    return flow


def test_a_reported_hello_goes_to_the_chosen_address_and_is_not_vouched_for_by_its_name() -> None:
    flow, data = reporting(), hello("a.test")
    assert flow.receive(data, 100.0) == (Judge(TlsHello(A)),)
    assert flow.judged(REPORTED, is_taught=False) == (SendUpstream(data), PASS_BOTH)
    assert (flow.name, flow.handshake) == (None, BadHandshake("not inspected"))


def test_an_allowed_hello_whose_name_did_not_teach_the_address_goes_there_all_the_same() -> None:
    flow, data = reporting(), hello("a.test")
    flow.receive(data, 100.0)
    assert flow.judged(BY_NAME, is_taught=False) == (SendUpstream(data), PASS_BOTH)
    assert flow.handshake == BadHandshake("not inspected")


@pytest.mark.parametrize("verdict", [REPORTED, BY_NAME])
def test_a_hello_whose_name_taught_the_address_can_be_judged_again(verdict: ReportOnly | Allow) -> None:
    flow, data = reporting(), hello("a.test")
    flow.receive(data, 100.0)
    assert flow.judged(verdict, is_taught=True) == (SendUpstream(data),)
    assert (flow.phase, flow.name, flow.handshake) == (FlowPhase.HELLO_SENT, A, TlsHello(A))
    assert flow.responded(SERVER_HELLO) == (PASS_BOTH,)


def second_hello(flow: RelayFlow) -> Commands:
    flow.receive(hello("a.test"), 100.0)
    flow.judged(REPORTED, is_taught=True)
    assert flow.responded(RETRY_REQUEST) == ()
    return flow.receive(hello("b.test"), 100.1)


def test_a_second_hello_with_another_name_passes_and_ends_what_the_first_vouched_for() -> None:
    flow = reporting()
    report, sent, passing = second_hello(flow)
    assert isinstance(report, Report)
    assert report.deny.reason is DenyReason.BAD_HANDSHAKE
    assert (sent, passing) == (SendUpstream(hello("b.test")), PASS_BOTH)
    assert (flow.name, flow.handshake) == (None, BadHandshake("not inspected"))


def test_once_the_policy_enforces_a_second_hello_is_refused_again() -> None:
    flow = reporting()
    flow.receive(hello("a.test"), 100.0)
    flow.judged(REPORTED, is_taught=True)
    flow.stop_reporting()
    assert flow.responded(RETRY_REQUEST) == ()
    assert refusal(flow.receive(hello("b.test"), 100.1)).deny.reason is DenyReason.BAD_HANDSHAKE


def test_requests_pass_as_they_are_and_each_is_judged() -> None:
    flow = reporting()
    assert flow.receive(GET_A, 100.0) == (Judge(HttpRequest(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(GET_A),)
    assert (flow.phase, flow.handshake) == (FlowPhase.WATCHED, BadHandshake("not inspected"))
    odd = GET_B.replace(b"Host", b"hOST")
    assert flow.receive(odd + GET_A, 100.1) == (SendUpstream(odd + GET_A), Judge(HttpRequest(B)))
    assert flow.judged(REPORTED, is_taught=False) == (Judge(HttpRequest(A)),)
    assert flow.judged(BY_NAME, is_taught=True) == ()
    sent, judge = flow.receive(b"GET\n\n", 100.2)
    assert (sent, isinstance(judge, Judge)) == (SendUpstream(b"GET\n\n"), True)
    assert flow.judged(REPORTED, is_taught=False) == (PASS_BOTH,)
    assert flow.phase is FlowPhase.PASSING


def test_behind_a_websocket_nothing_is_taken_for_a_request() -> None:
    flow = reporting()
    upgrade = GET_A.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    flow.receive(upgrade, 100.0)
    assert flow.judged(BY_NAME, is_taught=True) == (SendUpstream(upgrade), PASS_BOTH)


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x02xx", b"GET / HTTP/9\r\n\r\n"])
def test_whatever_else_is_said_passes_too(data: bytes) -> None:
    flow = reporting()
    (judge,) = flow.receive(data, 100.0)
    assert isinstance(judge, Judge)
    assert flow.judged(REPORTED, is_taught=False) == (SendUpstream(data), PASS_BOTH)


def test_silence_and_endless_beginnings_are_reported_and_pass() -> None:
    late_one, data = reporting(), hello("a.test")[:50]
    assert late_one.receive(data, 100.0) == ()
    report, *rest = late_one.expire(100.0 + HANDSHAKE_S_MAX)
    assert isinstance(report, Report)
    assert (report.deny.reason, rest) == (DenyReason.HANDSHAKE_TIMEOUT, [SendUpstream(data), PASS_BOTH])
    long_one, data = reporting(), b"GET /" + b"x" * FIRST_BYTES_MAX
    report, *rest = long_one.receive(data, 100.0)
    assert isinstance(report, Report)
    assert (report.deny.reason, rest) == (DenyReason.HANDSHAKE_TOO_LONG, [SendUpstream(data), PASS_BOTH])


def test_a_client_that_only_listens_is_asked_about_nothing() -> None:
    assert reporting().client_finished() == (PASS_BOTH,)


def test_what_the_client_said_waits_for_the_connection() -> None:
    flow = RelayFlow(opens_early=True, now_s=100.0, is_reporting=True)
    flow.receive(GET_B, 100.0)
    assert flow.judged(REPORTED, is_taught=False) == ()
    assert flow.upstream_opened() == (SendUpstream(GET_B),)
    assert flow.phase is FlowPhase.WATCHED


def test_once_the_policy_enforces_a_flow_that_has_said_nothing_is_judged_as_any() -> None:
    flow = reporting()
    flow.stop_reporting()
    flow.receive(hello("b.test"), 100.0)
    assert refusal(flow.judged(NO, is_taught=False)) == Refuse(NO, None)
