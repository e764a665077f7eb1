"""The DNS gate: judges lookups, asks upstream for the allowed ones, and teaches the devbox their addresses.

It knows no socket: a query comes in as bytes with its devbox and a :class:`Client` to reply to. In this order:

1. the query is parsed; what is no proper query is refused;
2. a name below the tunnel domain is judged as a tunnel and answered from here: it is asked of nobody;
3. under ``allow_all`` the question is asked upstream whatever it is, and the answer relayed. Nothing is pinned and
   nothing counts as taught: the kernel lets such flows pass by themselves, and a policy that becomes narrower
   resets them all, so the devbox has to look names up again;
4. a name that the policy does not cover gets NXDOMAIN with the reason, and nothing leaves the host; where the policy
   only reports, the name is asked for like a covered one, so that flows to its addresses can be told by its name;
5. of an allowed name only addresses are asked for; every other type is answered empty. Where the policy only reports,
   all other types are relayed as under ``allow_all``, but those that would take clients past their handshake's name;
6. each address is judged (the deny floor), pinned in the kernel, and only then the answer goes out.

A decision is taken under one state of the table. If the table changed while a question was under way, its answer is
not used by the old decision: the query is judged again from the start.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from outgate.core.decide import decide_lookup, decide_teach, decide_tunnel, report
from outgate.core.measuring import LatencyCounts
from outgate.core.pins import PinKey
from outgate.core.ranges import normalise_address
from outgate.dataplane.dns_cache import Question, StoredAnswer
from outgate.dataplane.dns_log import LookupLog
from outgate.dataplane.dns_lookup import Lookups, UpstreamFailure, unpack_address
from outgate.dataplane.gate_measures import GateLatencies
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.pin_writer import PinPlace, PinWriter
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName
from outgate.model.verdict import Deny, DenyReason, Verdict
from outgate.wire.dns import (
    ADDRESS_BYTES,
    CLASS_IN,
    DnsFormatError,
    ExtendedError,
    ResponseCode,
    host_name,
    shown_name,
    wire_name,
)
from outgate.wire.dns_answer import RelayedAnswer
from outgate.wire.dns_query import Query, parse_query, parse_query_id
from outgate.wire.dns_reply import render_addresses, render_negative, render_refusal, render_relayed

OUTSTANDING_PER_DEVBOX_MAX: Final = 128
"""Queries of one devbox that wait for upstream. Browsers and package managers stay below 100."""
LESSONS_MAX: Final = 16_384
"""Answers remembered as taught, over all devboxes: some 5 MB. Forgetting them all costs 15 ms."""
READY_S: Final = 1.0
"""How long a rendered reply is used again: the TTLs it shows are never older than this."""


_PAST_NAMES: Final = frozenset({64, 65})
"""SVCB and HTTPS (RFC 9460): with their keys a client hides the name in its handshake (ECH), which would go unread."""
TUNNEL_TTL_S: Final = 60
"""The address never changes; what may be done with it is judged with each connection."""


class DeniedAnswer(StrEnum):
    """What a denied lookup gets."""

    NXDOMAIN = "nxdomain"
    REFUSED = "refused"


class Client(Protocol):
    """Who asked, on whatever transport."""

    def reply(self, query: Query | None, message: bytes, ready_s: float) -> None:
        """Send ``message``. The same query may get the same reply for ``ready_s`` seconds.

        ``query`` is None when it could not be parsed.
        """
        ...


class _Request(msgspec.Struct, gc=False):
    """One query on its way. ``name`` is set once it is known to be a host name that the policy covers.

    ``latency`` is where its answer will be counted, from the beginning of the turn that read it.
    """

    query: Query
    entry: DevboxEntry
    client: Client
    loop: Loop
    began_s: float
    latency: LatencyCounts
    name: DomainName | None = None

    def reply(self, message: bytes, ready_s: float) -> None:
        self.client.reply(self.query, message, ready_s)
        self.latency.observe(self.loop.read_clock() - self.began_s)

    def fail(self, code: ResponseCode, error: ExtendedError, text: str) -> None:
        self.reply(render_negative(self.query, code, error, text), 0)


class _Lesson(msgspec.Struct, frozen=True, gc=False):
    """An answer as one devbox was taught it.

    Teaching the same answer again would not make its pins last longer, since its TTL counts down meanwhile.
    """

    stored: StoredAnswer
    addresses: tuple[IPAddress, ...]
    packed: tuple[bytes, ...]


class DnsGate:
    """Answers the queries of the devboxes in ``table``."""

    def __init__(
        self,
        loop: Loop,
        table: GateTable,
        lookups: Lookups,
        writer: PinWriter,
        log: LookupLog,
        *,
        denied_answer: DeniedAnswer = DeniedAnswer.NXDOMAIN,
        tunnel_domain: DomainName | None = None,
        latencies: GateLatencies | None = None,
    ) -> None:
        self._loop = loop
        self._table = table
        self._lookups = lookups
        self._writer = writer
        self._log = log
        self._latencies = latencies or GateLatencies()
        self._denied_code = ResponseCode[denied_answer.name]
        self._tunnel_suffix = None if tunnel_domain is None else wire_name(tunnel_domain)
        self._outstanding: Counter[str] = Counter()
        self._lessons: dict[tuple[str, Question], _Lesson] = {}

    @property
    def lookups_open(self) -> int:
        """Queries that wait for upstream."""
        return self._outstanding.total()

    def forget(self) -> None:
        """The table or its pins changed: what was judged and taught has to be judged and taught again."""
        self._lessons.clear()

    def handle(self, message: bytes, entry: DevboxEntry, client: Client) -> None:
        """Judge one query of ``entry``'s devbox and reply to it, now or later; or never, if it is no query at all."""
        try:
            query = parse_query(message)
        except DnsFormatError as error:
            query_id = parse_query_id(message)
            if query_id is not None:
                client.reply(None, render_refusal(query_id, error.response_code), 0)
            return
        self._judge(_Request(query, entry, client, self._loop, self._loop.now(), self._latencies.dns_cached))

    def _judge(self, request: _Request) -> None:
        query, entry = request.query, request.entry
        if query.record_class != CLASS_IN:
            request.fail(ResponseCode.REFUSED, ExtendedError.PROHIBITED, "Only class IN is served.")
        elif self._tunnel_suffix is not None and query.wire_name.endswith(self._tunnel_suffix):
            self._judge_tunnel(request)
        elif entry.policy.is_allow_all:
            self._relay(request, entry.policy.allow_all)
        else:
            self._judge_name(request)

    def _relay(self, request: _Request, verdict: Verdict) -> None:
        """Ask upstream whatever is asked here, and hand the answer on as it is."""
        query = request.query
        self._log.record(request.entry, verdict, query.wire_name)
        is_relayed = True
        question = Question(query.wire_name, query.record_type, is_relayed, query.dnssec_ok, query.checking_disabled)
        self._look_up(question, request)

    def _judge_tunnel(self, request: _Request) -> None:
        query, entry = request.query, request.entry
        name = host_name(query.wire_name)
        verdict = (
            _deny_strange_name(query.wire_name)
            if name is None
            else decide_tunnel(entry.policy, entry.account_id, name, entry.context)
        )
        if isinstance(verdict, Deny):
            self._deny(request, verdict)
            return
        self._log.record(entry, verdict, query.wire_name)
        size = ADDRESS_BYTES.get(query.record_type)
        packed = [address.packed for address in entry.context.tunnel_addresses if len(address.packed) == size]
        if packed:
            request.reply(render_addresses(query, packed, TUNNEL_TTL_S), READY_S)
        else:
            request.reply(render_negative(query, ResponseCode.NOERROR), READY_S)

    def _judge_name(self, request: _Request) -> None:
        query, entry = request.query, request.entry
        name = host_name(query.wire_name)
        verdict = (
            report(entry.policy, _deny_strange_name(query.wire_name))
            if name is None
            else decide_lookup(entry.policy, name, entry.context)
        )
        if isinstance(verdict, Deny):
            self._deny(request, verdict)
            return
        if name is None or query.record_type not in ADDRESS_BYTES:
            if entry.policy.is_report_only and query.record_type not in _PAST_NAMES:
                self._relay(request, verdict)
                return
            self._log.record(entry, verdict, query.wire_name)
            request.reply(render_negative(query, ResponseCode.NOERROR), READY_S)
            return
        overspent = self._table.wildcard_budget.spend(entry.id, entry.policy, name, self._loop.now())
        if overspent is not None:
            verdict = report(entry.policy, overspent)
            if isinstance(verdict, Deny):
                self._deny(request, verdict)
                return
        self._log.record(entry, verdict, query.wire_name)
        request.name = name
        self._look_up(Question(query.wire_name, query.record_type), request)

    def _deny(self, request: _Request, denied: Deny) -> None:
        self._log.record(request.entry, denied, request.query.wire_name)
        request.latency = self._latencies.dns_denied
        reply = render_negative(request.query, self._denied_code, ExtendedError.BLOCKED, denied.sentence)
        request.reply(reply, READY_S)

    # -- upstream

    def _look_up(self, question: Question, request: _Request) -> None:
        entry = request.entry
        stored = self._lookups.find(question)
        if stored is not None:
            self._answer(question, stored, request)
            return
        if self._outstanding[entry.id] >= OUTSTANDING_PER_DEVBOX_MAX:
            self._log.record(entry, _TOO_MANY, b"")
            request.fail(ResponseCode.SERVFAIL, ExtendedError.OTHER, _TOO_MANY.sentence)
            return
        self._outstanding[entry.id] += 1
        request.latency = self._latencies.dns_forwarded
        policy, context = entry.policy, entry.context

        def finish(result: StoredAnswer | UpstreamFailure) -> None:
            self._count_down(entry.id)
            if self._table.get_devbox(entry.id) is not entry:
                return  # the devbox ended
            if isinstance(result, UpstreamFailure):
                request.fail(ResponseCode.SERVFAIL, ExtendedError.NO_REACHABLE_AUTHORITY, result.text)
            elif entry.policy is not policy or entry.context is not context:
                self._judge(request)
            else:
                self._answer(question, result, request)

        self._lookups.ask(question, finish)

    def _count_down(self, devbox_id: str) -> None:
        self._outstanding[devbox_id] -= 1
        if not self._outstanding[devbox_id]:
            del self._outstanding[devbox_id]

    # -- answers

    def _answer(self, question: Question, stored: StoredAnswer, request: _Request) -> None:
        answer = stored.answer
        now_s = self._loop.now()
        remaining_s = stored.until_s - now_s
        ready_s = min(READY_S, remaining_s)
        if isinstance(answer, RelayedAnswer):
            request.reply(render_relayed(request.query, answer, int(now_s - stored.since_s)), ready_s)
            return
        if not answer.addresses:
            request.reply(render_negative(request.query, ResponseCode(answer.response_code)), ready_s)
            return
        lesson = self._lessons.get((request.entry.id, question))
        if lesson is None or lesson.stored is not stored:
            allowed, denied = self._judge_addresses(request, answer.addresses)
            if denied is not None and not allowed:
                # The name exists, its addresses are not for this devbox: an empty answer, not a missing name.
                reply = render_negative(request.query, ResponseCode.NOERROR, ExtendedError.BLOCKED, denied.sentence)
                request.reply(reply, READY_S)
                return
            lesson = _Lesson(stored, tuple(allowed), tuple([address.packed for address in allowed]))
            self._teach(request, question, lesson, remaining_s)
        reply = render_addresses(request.query, lesson.packed, max(1, math.ceil(remaining_s)))
        if self._writer.is_idle:
            request.reply(reply, ready_s)
        else:
            addresses = lesson.addresses
            self._writer.after_commit(lambda refused: self._reply_pinned(request, addresses, reply, refused))

    def _judge_addresses(self, request: _Request, addresses: Sequence[bytes]) -> tuple[list[IPAddress], Deny | None]:
        """The addresses that may be handed out, and the first denial if there was one."""
        entry, name = request.entry, request.name
        if name is None:
            raise AssertionError("addresses are asked for by a covered name only")
        allowed: list[IPAddress] = []
        first_denied: Deny | None = None
        for packed in addresses:
            address = unpack_address(packed)
            verdict = decide_teach(entry.policy, name, address, entry.context)
            if isinstance(verdict, Deny):
                self._log.record(entry, verdict, request.query.wire_name, address=str(address))
                first_denied = first_denied or verdict
            else:
                allowed.append(address)
        return allowed, first_denied

    def _teach(self, request: _Request, question: Question, lesson: _Lesson, ttl_s: float) -> None:
        entry, name = request.entry, request.name
        if name is None:
            raise AssertionError("addresses are taught under a covered name only")
        now_s = self._loop.now()
        if len(self._lessons) >= LESSONS_MAX:
            self._lessons.clear()
        self._lessons[entry.id, question] = lesson
        for address in lesson.addresses:
            change = entry.pins.teach(entry.id, name, address, ttl_s, now_s)
            if change.deletes:
                self._lessons.clear()  # a pin made room: what it taught is not known any more
            if change.write is not None or change.deletes:
                self._writer.submit(entry, change)

    def _reply_pinned(
        self, request: _Request, addresses: Sequence[IPAddress], reply: bytes, refused: Collection[PinPlace]
    ) -> None:
        entry = request.entry
        lost = [address for address in map(normalise_address, addresses) if (entry.link, address) in refused]
        if not lost:
            request.reply(reply, READY_S)
            return
        # The kernel has no pin: forget it here, too, so that the next lookup tries again.
        self._lessons.clear()
        entry.pins.drop(PinKey(entry.id, address) for address in lost)
        text = "The host could not open the way to this address."
        request.fail(ResponseCode.SERVFAIL, ExtendedError.OTHER, text)


_TOO_MANY: Final = Deny(
    DenyReason.RESOURCE_LIMIT,
    f"The devbox has {OUTSTANDING_PER_DEVBOX_MAX} lookups under way, which is the most it may have.",
)


def _deny_strange_name(wire_name: bytes) -> Deny:
    return Deny(DenyReason.NAME_NOT_ALLOWED, f"{shown_name(wire_name)} is no host name, so no rule can cover it.")
