"""The DNS gate without sockets, kernel and clock: what goes in and out are values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.message
import dns.rcode

from outgate.core.documents import document_from_policy
from outgate.dataplane.dns_cache import DnsCache, Question
from outgate.dataplane.dns_gate import DeniedAnswer, DnsGate
from outgate.dataplane.dns_log import LookupLog
from outgate.dataplane.dns_lookup import AskCallback, Lookups, UpstreamFailure
from outgate.dataplane.gate_measures import GateLatencies
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.pin_elements import Pin
from outgate.dataplane.pin_writer import PinPlace, PinWriter
from outgate.dataplane.records import Recorder
from outgate.model.addresses import IPAddress
from outgate.model.desired import FlowRecord, GateApply, GateDevbox, GateRecords, PolicyDocument
from outgate.model.flow import HostContext
from outgate.model.policy import NetworkPolicy
from outgate.wire.dns_answer import Answer, RelayedAnswer
from outgate.wire.dns_query import Query


class FakeClock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FakePinSets:
    """The kernel's pin sets. ``refusal`` makes every change fail with that errno, as does the deletion of nothing."""

    def __init__(self) -> None:
        self.pins: dict[PinPlace, Pin] = {}
        self.transactions: list[tuple[tuple[Pin, ...], tuple[PinPlace, ...]]] = []
        self.refusal: int | None = None

    def change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> None:
        """As the kernel does it."""
        self.transactions.append((tuple(adds), tuple(deletes)))
        if self.refusal is not None:
            raise NetlinkError(self.refusal, "committing a transaction")
        if any(place not in self.pins for place in deletes):
            raise NetlinkError(2, "committing a transaction")
        for place in deletes:
            del self.pins[place]
        for pin in adds:
            self.pins[pin.link, pin.address] = pin

    def dump(self) -> list[Pin]:
        """Every pin."""
        if self.refusal is not None:
            raise NetlinkError(self.refusal, "reading set pins4")
        return list(self.pins.values())

    def addresses(self, link: str) -> set[IPAddress]:
        """The pinned addresses of one link."""
        return {address for place_link, address in self.pins if place_link == link}


class FakeUpstream:
    """Notes the questions; tests answer them."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self._callbacks: list[AskCallback] = []

    def ask(self, question: Question, callback: AskCallback) -> None:
        """As :class:`~outgate.dataplane.dns_lookup.Upstream`."""
        self.asked.append(question)
        self._callbacks.append(callback)

    def answer(self, outcome: Answer | RelayedAnswer | UpstreamFailure) -> None:
        """Answer the oldest question."""
        self._callbacks.pop(0)(outcome)

    @property
    def waiting(self) -> int:
        """Questions without an answer."""
        return len(self._callbacks)


@dataclass
class FakeClient:
    """Keeps the replies, with how long each may be used again."""

    replies: list[bytes] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)

    def reply(self, query: Query | None, message: bytes, ready_s: float) -> None:  # noqa: ARG002 - the protocol's
        """As :class:`~outgate.dataplane.dns_gate.Client`."""
        self.replies.append(message)
        self.ready_s.append(ready_s)

    @property
    def message(self) -> dns.message.Message:
        """The one reply, as dnspython reads it."""
        (reply,) = self.replies
        return dns.message.from_wire(reply)

    @property
    def code(self) -> str:
        """The response code of the one reply, by name."""
        return dns.rcode.to_text(self.message.rcode())

    @property
    def addresses(self) -> set[str]:
        """The addresses in the one reply."""
        return {record.to_text() for rrset in self.message.answer for record in rrset}

    @property
    def error_text(self) -> str:
        """The text of the one extended error in the one reply."""
        (option,) = self.message.options
        return str(option.text)


def document(policy: NetworkPolicy) -> PolicyDocument:
    """A policy as the agent sends it."""
    return document_from_policy(policy, range(16, 16 + len(policy.egress.allowed_cidrs)))


def devbox(number: int = 1, policy_id: str = "npol_1") -> GateDevbox:
    """Devbox number N: id dbx_N, link ogN, addresses 10.213.0.N and fd00::N."""
    return GateDevbox(
        id=f"dbx_{number}",
        account_id="acct_1",
        policy_id=policy_id,
        link=f"og{number}",
        address4=f"10.213.0.{number}",
        address6=f"fd00::{number:x}",
    )


class Harness:
    """A gate's DNS half around fakes, with devbox 1 under ``policies[0]`` unless ``devboxes`` says otherwise."""

    def __init__(
        self,
        *policies: NetworkPolicy,
        devboxes: Sequence[GateDevbox] | None = None,
        context: HostContext | None = None,
        denied_answer: DeniedAnswer = DeniedAnswer.NXDOMAIN,
    ) -> None:
        self.clock = FakeClock()
        self.loop = Loop(monotonic_s=self.clock)
        self.records: list[FlowRecord] = []
        self.warnings: list[tuple[str, str]] = []
        self.sets = FakePinSets()
        self.upstream = FakeUpstream()
        context = HostContext() if context is None else context
        self.table = GateTable(context)
        self.writer = PinWriter(self.sets, lambda code, text: self.warnings.append((code, text)))
        self.lookups = Lookups(self.loop, self.upstream, DnsCache())
        self.recorder = Recorder(self.loop, self._take_records)
        self.latencies = GateLatencies()
        log = LookupLog(self.loop, self.recorder)
        self.gate = DnsGate(
            self.loop,
            self.table,
            self.lookups,
            self.writer,
            log,
            denied_answer=denied_answer,
            tunnel_domain=context.tunnel_domain,
            latencies=self.latencies,
        )
        self.loop.at_turn_end(self.writer.commit)
        boxes = (devbox(1, policies[0].id),) if devboxes is None else tuple(devboxes)
        self.table.apply(GateApply(revision=1, full=True, policies=tuple(map(document, policies)), devboxes=boxes))

    def _take_records(self, batch: GateRecords) -> bool:
        self.records += batch.records
        return True

    def entry(self, number: int = 1) -> DevboxEntry:
        """The entry of devbox N."""
        entry = self.table.get_devbox(f"dbx_{number}")
        assert entry is not None
        return entry

    def ask(self, name: str, kind: str = "A", *, number: int = 1, edns: int = 0) -> FakeClient:
        """Send a query of devbox N through the gate."""
        client = FakeClient()
        self.gate.handle(dns.message.make_query(name, kind, use_edns=edns).to_wire(), self.entry(number), client)
        return client

    def answer(self, *addresses: str, ttl_s: int = 60) -> None:
        """Answer the oldest upstream question with these addresses, and end the turn."""
        self.upstream.answer(packed_answer(*addresses, ttl_s=ttl_s))
        self.end_turn()

    def end_turn(self) -> None:
        """One turn of the loop: commits what was taught."""
        self.loop.call_soon(lambda: None)
        self.loop.run_once(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.clock.now_s += seconds
        self.end_turn()


def packed_answer(*addresses: str, ttl_s: int = 60) -> Answer:
    """A positive answer."""
    return Answer(0, tuple(ip_address(address).packed for address in addresses), ttl_s)
