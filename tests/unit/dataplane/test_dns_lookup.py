"""Cache, questions under way, and the relay's view of both."""

from ipaddress import ip_address

from outgate.dataplane.dns_cache import DnsCache, Question, StoredAnswer
from outgate.dataplane.dns_lookup import LookupResolver, Lookups, UpstreamFailure
from outgate.dataplane.loop import Loop
from outgate.dataplane.resolver import Resolution
from outgate.model.names import parse_domain_name
from outgate.wire.dns_answer import Answer, RelayedAnswer
from support.gate_harness import FakeClock, FakeUpstream, packed_answer

NAME = parse_domain_name("example.com")
A, AAAA = (Question(b"\7example\3com\0", kind) for kind in (1, 28))


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = Loop(monotonic_s=self.clock)
        self.upstream = FakeUpstream()
        self.cache = DnsCache()
        self.lookups = Lookups(self.loop, self.upstream, self.cache)
        self.resolver = LookupResolver(self.loop, self.lookups)
        self.results: list[Resolution] = []

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.loop.run_once(0)


def test_both_families_are_given_once_both_are_known() -> None:
    bench = Bench()
    bench.resolver.resolve(NAME, bench.results.append)
    assert bench.upstream.asked == [A, AAAA]
    bench.upstream.answer(packed_answer("192.0.2.1", ttl_s=60))
    assert bench.results == []
    bench.upstream.answer(packed_answer("2001:db8::1", ttl_s=40))
    assert bench.results == [Resolution((ip_address("192.0.2.1"), ip_address("2001:db8::1")), 40)]
    bench.resolver.resolve(NAME, bench.results.append)
    assert bench.results[1] == bench.results[0]
    assert len(bench.upstream.asked) == 2


def test_one_family_is_enough() -> None:
    bench = Bench()
    bench.resolver.resolve(NAME, bench.results.append)
    bench.upstream.answer(UpstreamFailure("no answer"))
    bench.upstream.answer(packed_answer("2001:db8::1"))
    assert bench.results == [Resolution((ip_address("2001:db8::1"),), 60)]


def test_without_addresses_the_failure_is_said() -> None:
    bench = Bench()
    bench.resolver.resolve(NAME, bench.results.append)
    bench.upstream.answer(Answer(3, (), None))
    bench.upstream.answer(Answer(3, (), None))
    bench.wait(6)
    bench.resolver.resolve(NAME, bench.results.append)
    bench.upstream.answer(UpstreamFailure("no upstream resolver answered in time"))
    bench.upstream.answer(UpstreamFailure("no upstream resolver answered in time"))
    assert [result.addresses for result in bench.results] == [(), ()]
    assert [result.failure for result in bench.results] == [
        "the name has no address",
        "no upstream resolver answered in time",
    ]


def test_failures_are_not_kept() -> None:
    bench = Bench()
    got: list[StoredAnswer | UpstreamFailure] = []
    bench.lookups.look_up(A, got.append)
    bench.upstream.answer(UpstreamFailure("gone"))
    bench.lookups.look_up(A, got.append)
    assert len(bench.upstream.asked) == 2


def test_negative_answers_are_kept_a_minute_at_most() -> None:
    bench = Bench()
    got: list[StoredAnswer | UpstreamFailure] = []
    bench.lookups.look_up(A, got.append)
    bench.upstream.answer(Answer(3, (), 86400))
    bench.wait(59)
    assert bench.lookups.find(A) is not None
    bench.wait(2)
    assert bench.lookups.find(A) is None


def test_relayed_answers_are_kept_for_their_ttl_unless_they_are_failures() -> None:
    bench = Bench()
    question = Question(b"\0", 2, is_relayed=True)
    for flags, kept in ((0x8180, True), (0x8182, False)):
        bench.lookups.look_up(question, lambda _result: None)
        bench.upstream.answer(RelayedAnswer(flags, (0, 0, 0), b"", (), 10))
        assert (bench.lookups.find(question) is not None) == kept
        bench.wait(10)


def test_a_waiter_may_ask_the_same_again() -> None:
    bench = Bench()
    got: list[object] = []

    def again(_result: object) -> None:
        bench.lookups.look_up(A, got.append)

    bench.lookups.look_up(A, again)
    bench.upstream.answer(UpstreamFailure("gone"))
    assert bench.upstream.waiting == 1
    bench.upstream.answer(packed_answer("192.0.2.1"))
    assert len(got) == 1


def test_the_cache_is_bounded_in_number_and_in_bytes() -> None:
    cache = DnsCache(entries_max=10)
    for i in range(25):
        cache.store(Question(bytes((i,)), 1), StoredAnswer(Answer(0, (), 5), 0, 100))
    assert len(cache) == 10
    assert cache.find(Question(bytes((24,)), 1), 1) is not None
    assert cache.find(Question(bytes((3,)), 1), 1) is None
    cache = DnsCache(bytes_max=100_000)
    for i in range(25):
        body = RelayedAnswer(0, (0, 0, 0), b"x" * 30_000, (), 5)
        cache.store(Question(bytes((i,)), 1, is_relayed=True), StoredAnswer(body, 0, 100))
    assert len(cache) == 3


def test_the_cache_forgets_what_is_over_and_gives_its_room_back() -> None:
    cache = DnsCache(bytes_max=1000)
    for i in range(100):
        question = Question(bytes((i,)), 1)
        cache.store(question, StoredAnswer(Answer(0, (b"1234",), 5), i, i + 5))
        assert cache.find(question, i + 5) is None
    assert len(cache) == 0
    assert cache._bytes == 0
