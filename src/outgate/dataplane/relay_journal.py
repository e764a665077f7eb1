"""What one relayed flow leaves on record: each decision, and at its end how much passed."""

from collections.abc import Collection
from typing import Final

from msgspec import structs

from outgate import clock
from outgate.dataplane.gate_table import DevboxEntry
from outgate.dataplane.records import Recorder, decision_record
from outgate.model.desired import FlowRecord
from outgate.model.flow import Handshake, HttpRequest, TlsHello
from outgate.model.names import DomainName
from outgate.model.verdict import Deny, DenyReason, EnforcementPoint, ReportOnly, Verdict

_PROTOCOLS: Final[dict[type[Handshake], str]] = {TlsHello: "tls", HttpRequest: "http"}


def name_of(handshake: Handshake | None) -> DomainName | None:
    """The host that a handshake names."""
    match handshake:
        case TlsHello(server_name=name) | HttpRequest(host=name):
            return name
        case _:
            return None


class FlowJournal:
    """Writes the records of one flow to ``host``, port ``port``."""

    __slots__ = ("_asked", "_denied", "_entry", "_first", "_host", "_port", "_recorder", "_taught")

    def __init__(self, recorder: Recorder, entry: DevboxEntry, host: str, port: int) -> None:
        self._recorder = recorder
        self._entry = entry
        self._host = host
        self._port = port
        self._taught: DomainName | None = None
        """The name that led here, when there is but one: the name of a flow that says none itself."""
        self._asked: Handshake | None = None
        self._denied: Deny | None = None
        """The last verdict, when it was a denial: it is on record, its refusal need not be."""
        self._first: FlowRecord | None = None
        """The decision by which bytes passed; the record of the finished flow repeats it."""

    def learnt(self, names: Collection[DomainName]) -> None:
        """The devbox learnt the address by ``names``."""
        self._taught = next(iter(names)) if len(names) == 1 else None

    def said_nothing(self) -> None:
        """It ends without a word of either side: what ports of the web ask for was not refused to anybody."""
        if self._first is not None and self._first.reason == DenyReason.NOT_WEB:
            self._first = None

    def opened_early(self, verdict: Verdict) -> None:
        """The flow passes by its address as long as the client says nothing. Not on record unless it ends so."""
        self._first = self._render(verdict, None)

    def decided(self, verdict: Verdict, handshake: Handshake, *, is_first: bool) -> None:
        """There is a verdict on what the client said."""
        record = self._render(verdict, handshake)
        self._recorder.decisions.decided(EnforcementPoint.RELAY, verdict)
        self._recorder.record(record)
        self._asked = handshake
        self._denied = verdict if isinstance(verdict, Deny) else None
        if is_first:
            self._first = None if self._denied is not None else record

    def refused(self, deny: Deny, *, has_passed: bool) -> None:
        """The flow, or its last request, is refused. ``has_passed``: it was allowed and connected before."""
        if deny is not self._denied:
            self._recorder.decisions.decided(EnforcementPoint.RELAY, deny)
            self._recorder.record(self._render(deny, self._asked))
        if not has_passed:
            self._first = None

    def ended(self, bytes_out: int, bytes_in: int, duration_s: float, error: str) -> None:
        """The flow is over. ``error``: what broke it, if anything did."""
        first = self._first
        if first is not None:
            self._recorder.record(
                structs.replace(
                    first,
                    time_ms=clock.wall_ms(),
                    sentence=f"{first.sentence} (Ended: {error}.)" if error else first.sentence,
                    bytes_out=bytes_out,
                    bytes_in=bytes_in,
                    duration_ms=int(duration_s * 1000),
                )
            )

    def _render(self, verdict: Verdict, handshake: Handshake | None) -> FlowRecord:
        record = render_record(self._entry, verdict, handshake, self._host, self._port)
        if isinstance(verdict, ReportOnly) and self._taught is not None and not record.name:
            return structs.replace(record, name=self._taught)
        return record


def render_record(
    entry: DevboxEntry, verdict: Verdict, handshake: Handshake | None, host: str, port: int
) -> FlowRecord:
    """The record of a verdict on a flow to the address ``host``."""
    return decision_record(
        entry,
        verdict,
        EnforcementPoint.RELAY,
        name=name_of(handshake) or "",
        address=host,
        port=port,
        protocol="tcp" if handshake is None else _PROTOCOLS.get(type(handshake), "tcp"),
    )
