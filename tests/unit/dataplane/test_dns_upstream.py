"""The upstream side against real resolvers on loopback: attempts, spoofing, truncation, sockets."""

import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import dns.flags
import dns.message
import dns.rcode
import pytest

from outgate.dataplane.dns_cache import Question
from outgate.dataplane.dns_exchange import ATTEMPT_TIMEOUTS_S, ServerAddress
from outgate.dataplane.dns_lookup import UpstreamFailure
from outgate.dataplane.dns_upstream import DnsUpstream, Randomness
from outgate.dataplane.loop import Loop
from outgate.wire.dns_answer import Answer, RelayedAnswer
from support.dns_server import DnsServer, dns_server, make_records
from support.gate_harness import FakeClock

WAIT_S = 30.0
A = Question(b"\7example\3com\0", 1)
ADDRESS = b"\xc0\0\2\1"


class PlainSockets:
    """Sockets of the test's own namespace."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        self.taken += 1
        made = socket.socket(family, kind)
        made.setblocking(False)
        return made


class Asker:
    def __init__(self, *servers: ServerAddress, randomness: Randomness | None = None) -> None:
        self.clock = FakeClock()
        self.loop = Loop(monotonic_s=self.clock)
        self.sockets = PlainSockets()
        self.upstream = DnsUpstream(self.loop, self.sockets, servers, randomness)
        self.outcomes: list[Answer | RelayedAnswer | UpstreamFailure] = []

    def ask(self, question: Question = A) -> None:
        self.upstream.ask(question, self.outcomes.append)

    def run_until(self, is_done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not is_done():
            assert time.monotonic() < deadline_s, "it took too long"
            self.loop.run_once(0.05)

    def pass_time(self, seconds: float) -> None:
        """Let time go by in small steps, as it does."""
        for _ in range(int(seconds / 0.05)):
            self.clock.now_s += 0.05
            self.loop.run_once(0)

    def ask_and_wait(self, question: Question = A) -> Answer | RelayedAnswer | UpstreamFailure:
        count = len(self.outcomes)
        self.ask(question)
        self.run_until(lambda: len(self.outcomes) > count)
        return self.outcomes[-1]


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with dns_server() as server:
        server.add("example.com", "A", "192.0.2.1")
        yield server


def at(server: DnsServer) -> ServerAddress:
    return ServerAddress(server.address, server.port)


def dead() -> ServerAddress:
    """A place where nobody listens: the kernel says so at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return ServerAddress("127.0.0.1", one.getsockname()[1])


def test_an_answer(server: DnsServer) -> None:
    asker = Asker(at(server))
    assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
    assert server.questions == [("example.com", "A")]
    asker.upstream.close()


def test_ids_and_ports_change_and_sockets_are_replaced(server: DnsServer) -> None:
    asker = Asker(at(server))
    count = 600
    for start in range(0, count, 50):
        for _ in range(50):
            asker.ask()
        asker.run_until(lambda start=start: len(asker.outcomes) == start + 50)  # type: ignore[misc] # a bound default
    ids = server.ids
    assert len(set(ids)) > count * 0.95
    assert sum(b == a + 1 for a, b in pairwise(ids)) < 5
    ports = [port for _, port in server.sources]
    assert len(set(ports)) >= 8
    asker.upstream.close()


def test_worn_sockets_are_replaced_and_closed(server: DnsServer) -> None:
    asker = Asker(at(server))
    for _ in range(8):
        asker.ask_and_wait()
    first = {port.descriptor.fileno() for port in asker.upstream._ports[0]}
    for port in asker.upstream._ports[0]:
        port.uses = 512
    before = [port.descriptor for port in asker.upstream._ports[0]]
    for _ in range(64):
        asker.ask_and_wait()
    assert len(first) == 8
    assert asker.sockets.taken > 8
    assert any(descriptor.fileno() == -1 for descriptor in before)
    asker.upstream.close()


def test_a_forged_answer_is_not_taken_and_the_true_one_still_is(server: DnsServer) -> None:
    def forge(query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        other_id = dns.message.from_wire(response.to_wire())
        other_id.id ^= 1
        other_question = dns.message.make_response(dns.message.make_query("example.org", "A", id=query.id))
        other_question.answer.append(make_records("example.org", 60, "A", ["203.0.113.66"]))
        forged = [other_id.to_wire(), other_question.to_wire(), b"", b"\0" * 11, query.to_wire()]
        return [*forged, response.to_wire()]

    server.behaviour = forge
    asker = Asker(at(server))
    assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
    asker.upstream.close()


def test_an_answer_from_elsewhere_does_not_even_arrive(server: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))

        def from_elsewhere(query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
            forged = dns.message.make_response(query)
            forged.answer.append(make_records("example.com", 60, "A", ["203.0.113.66"]))
            stranger.sendto(forged.to_wire(), server.sources[-1])
            return [response.to_wire()]

        server.behaviour = from_elsewhere
        asker = Asker(at(server))
        assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
        asker.upstream.close()


def test_many_strangers_make_a_socket_be_replaced(server: DnsServer) -> None:
    def noise(query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        return [*([b"\0" * 12] * 70), response.to_wire()]

    server.behaviour = noise
    asker = Asker(at(server))
    for _ in range(40):
        asker.ask_and_wait()
    assert asker.sockets.taken > 8
    asker.upstream.close()


def test_a_server_that_is_not_there_costs_no_time_when_there_is_another(server: DnsServer) -> None:
    asker = Asker(dead(), at(server))
    # The clock stands still: no deadline can have moved it on.
    assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
    asker.ask_and_wait()
    assert asker.upstream._preferred == 1
    asker.upstream.close()


def test_a_silent_server_is_given_up_and_avoided(server: DnsServer) -> None:
    with dns_server() as silent:
        silent.behaviour = lambda _query, _response: []
        asker = Asker(at(silent), at(server))
        asker.ask()
        asker.run_until(lambda: len(silent.questions) == 1)
        asker.pass_time(ATTEMPT_TIMEOUTS_S[0] + 0.1)
        asker.run_until(lambda: asker.outcomes == [Answer(0, (ADDRESS,), 300)])
        asker.ask_and_wait()
        assert len(silent.questions) == 1
        asker.upstream.close()


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_server_that_cannot_answer_is_followed_by_the_next(server: DnsServer, code: dns.rcode.Rcode) -> None:
    def refuse(_query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        response.answer.clear()
        response.set_rcode(code)
        return [response.to_wire()]

    with dns_server() as broken:
        broken.behaviour = refuse
        asker = Asker(at(broken), at(server))
        assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
        alone = Asker(at(broken))
        outcome = alone.ask_and_wait()
        assert outcome == UpstreamFailure(f"the upstream resolver answered {dns.rcode.to_text(code)}")
        asker.upstream.close()
        alone.upstream.close()


def test_nobody_answers_within_the_budget() -> None:
    with dns_server() as silent:
        silent.behaviour = lambda _query, _response: []
        asker = Asker(at(silent))
        asker.ask()
        asker.pass_time(sum(ATTEMPT_TIMEOUTS_S) - 0.1)
        assert asker.outcomes == []
        asker.pass_time(0.3)
        assert asker.outcomes == [UpstreamFailure("no upstream resolver answered in time")]
        asker.run_until(lambda: len(silent.questions) == len(ATTEMPT_TIMEOUTS_S))
        assert len(set(silent.ids)) == len(ATTEMPT_TIMEOUTS_S)
        assert all(not port.pending for port in asker.upstream._ports[0])
        asker.upstream.close()


def test_a_lost_query_is_sent_again(server: DnsServer) -> None:
    calls: list[int] = []

    def lose_first(_query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        calls.append(1)
        return [] if len(calls) == 1 else [response.to_wire()]

    server.behaviour = lose_first
    asker = Asker(at(server))
    asker.ask()
    asker.run_until(lambda: len(calls) == 1)
    asker.pass_time(ATTEMPT_TIMEOUTS_S[0] + 0.1)
    asker.run_until(lambda: asker.outcomes == [Answer(0, (ADDRESS,), 300)])
    asker.upstream.close()


def test_a_truncated_answer_is_fetched_by_tcp(server: DnsServer) -> None:
    addresses = [f"192.0.{2 + i // 250}.{i % 250}" for i in range(300)]
    server.add("example.com", "A", *addresses)
    asker = Asker(at(server))
    outcome = asker.ask_and_wait()
    assert isinstance(outcome, Answer)
    assert len(outcome.addresses) == 64
    assert server.questions == [("example.com", "A")] * 2
    relayed = asker.ask_and_wait(Question(b"\7example\3com\0", 1, is_relayed=True))
    assert isinstance(relayed, RelayedAnswer)
    assert relayed.counts[0] == 300
    assert asker.upstream._tcp_count == 0
    asker.upstream.close()


def test_truncated_by_tcp_too_is_a_failure(server: DnsServer) -> None:
    def truncate(_query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    server.behaviour = truncate
    asker = Asker(at(server))
    assert isinstance(asker.ask_and_wait(), UpstreamFailure)
    asker.upstream.close()


def test_a_resolver_on_ipv6() -> None:
    with dns_server("::1") as server:
        server.add("example.com", "A", "192.0.2.1")
        asker = Asker(at(server))
        assert asker.ask_and_wait() == Answer(0, (ADDRESS,), 300)
        asker.upstream.close()


def test_randomness_gives_all_of_its_bytes_once() -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes(range(256)) * (size // 256)

    random = Randomness(source)
    assert [random.take() for _ in range(3)] == [0x0001, 0x0203, 0x0405]
    for _ in range(2045):
        random.take()
    assert asked == [4096]
    random.take()
    assert asked == [4096, 4096]
