"""Lookups: one question, one answer, from the cache or from upstream; asked once however many wait for it."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

import msgspec

from outgate.core.pins import clamp_ttl_s
from outgate.dataplane.dns_cache import DnsCache, Question, StoredAnswer
from outgate.dataplane.loop import Loop
from outgate.dataplane.resolver import Resolution
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName
from outgate.wire.dns import RecordType, ResponseCode, wire_name
from outgate.wire.dns_answer import Answer, RelayedAnswer

NEGATIVE_TTL_S_MIN: Final = 5
NEGATIVE_TTL_S_MAX: Final = 60
"""A name that appears is seen within a minute, whatever the zone's SOA says (RFC 2308 §5 allows hours)."""
RELAYED_TTL_S_MAX: Final = 3600


class UpstreamFailure(msgspec.Struct, frozen=True, gc=False):
    """No resolver gave a usable answer in time; ``text`` says in a few words what happened."""

    text: str


LookupCallback = Callable[[StoredAnswer | UpstreamFailure], None]
AskCallback = Callable[[Answer | RelayedAnswer | UpstreamFailure], None]


class Upstream(Protocol):
    """Asks the resolvers."""

    def ask(self, question: Question, callback: AskCallback) -> None:
        """Call ``callback`` once with the outcome, within 5 s."""
        ...


class Lookups:
    """The cache, and the questions that are under way."""

    def __init__(self, loop: Loop, upstream: Upstream, cache: DnsCache) -> None:
        self._loop = loop
        self._upstream = upstream
        self._cache = cache
        self._waiting: dict[Question, list[LookupCallback]] = {}

    def find(self, question: Question) -> StoredAnswer | None:
        """The cached answer, or None."""
        return self._cache.find(question, self._loop.now())

    def look_up(self, question: Question, callback: LookupCallback) -> None:
        """Call ``callback`` once with the answer: at once when it is cached.

        Who may have how many of these under way is the caller's business.
        """
        stored = self.find(question)
        if stored is not None:
            callback(stored)
        else:
            self.ask(question, callback)

    def ask(self, question: Question, callback: LookupCallback) -> None:
        """Call ``callback`` once with the upstream's answer; for who has looked into the cache already."""
        waiting = self._waiting.get(question)
        if waiting is not None:
            waiting.append(callback)
            return
        self._waiting[question] = [callback]
        self._upstream.ask(question, lambda outcome: self._finish(question, outcome))

    def _finish(self, question: Question, outcome: Answer | RelayedAnswer | UpstreamFailure) -> None:
        waiting = self._waiting.pop(question)
        result: StoredAnswer | UpstreamFailure
        if isinstance(outcome, UpstreamFailure):
            result = outcome
        else:
            now_s = self._loop.now()
            ttl_s = _ttl_s(outcome)
            result = StoredAnswer(outcome, now_s, now_s + ttl_s)
            if ttl_s > 0:
                self._cache.store(question, result)
        for callback in waiting:
            callback(result)


def _ttl_s(answer: Answer | RelayedAnswer) -> float:
    if isinstance(answer, RelayedAnswer):
        is_final = answer.flags & 0xF in (ResponseCode.NOERROR, ResponseCode.NXDOMAIN)
        return min(answer.ttl_s, RELAYED_TTL_S_MAX) if is_final else 0
    if answer.addresses:
        return clamp_ttl_s(answer.ttl_s or 0)
    return min(max(answer.ttl_s or 0, NEGATIVE_TTL_S_MIN), NEGATIVE_TTL_S_MAX)


class LookupResolver:
    """The relay's :class:`~outgate.dataplane.resolver.Resolver`, on the DNS gate's cache and upstream."""

    def __init__(self, loop: Loop, lookups: Lookups) -> None:
        self._loop = loop
        self._lookups = lookups

    def resolve(self, name: DomainName, callback: Callable[[Resolution], None]) -> None:
        """Call ``callback`` once with the addresses of both families."""
        wire = wire_name(name)
        results: list[StoredAnswer | UpstreamFailure] = []

        def collect(result: StoredAnswer | UpstreamFailure) -> None:
            results.append(result)
            if len(results) == 2:
                callback(self._combine(results))

        for record_type in (RecordType.A, RecordType.AAAA):
            self._lookups.look_up(Question(wire, record_type), collect)

    def _combine(self, results: list[StoredAnswer | UpstreamFailure]) -> Resolution:
        addresses: list[IPAddress] = []
        until_s: list[float] = []
        failure = "the name has no address"
        for result in results:
            if isinstance(result, UpstreamFailure):
                failure = result.text
            elif isinstance(result.answer, Answer) and result.answer.addresses:
                addresses += [unpack_address(packed) for packed in result.answer.addresses]
                until_s.append(result.until_s)
        if not addresses:
            return Resolution((), NEGATIVE_TTL_S_MIN, failure)
        return Resolution(tuple(addresses), int(clamp_ttl_s(min(until_s) - self._loop.now())))


def unpack_address(packed: bytes) -> IPAddress:
    """The address in the data of an A or AAAA record."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
