"""A relayed connection: what the client says, against what goes upstream."""

from dataclasses import dataclass, field

from fuzz.cuts import ways_to_cut
from fuzz.targets.handshake import name_heard_by_openssl
from fuzz.targets.http import check_upstream_reads, judge
from outgate.model.flow import Handshake, HttpRequest, Opaque, TlsHello
from outgate.model.names import DomainName
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, RuleRef, Verdict
from outgate.wire.first_bytes import FIRST_BYTES_MAX
from outgate.wire.relay_commands import Abandon, Commands, Dial, Judge, PassBoth, Refuse, SendUpstream
from outgate.wire.relay_flow import FlowPhase, RelayFlow

_ALLOWED = DomainName("a.example")
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_RULE = RuleRef("allowed_hostnames", 0, "a.example")


@dataclass
class Run:
    """One connection to its end: what was asked, what went upstream, and how it ended."""

    opens_early: bool
    upstream: bytes = b""
    judged: list[Handshake] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)
    dialled: list[DomainName | None] = field(default_factory=list)
    ended: str = ""
    answered: int = 0
    is_unread: bool = False


def relay(data: bytes) -> None:
    """The first byte's low bit says whether the server may speak first."""
    opens_early, client = bool(data[:1] and data[0] & 1), data[1:]
    whole = _run(opens_early, (client,))
    for pieces in ways_to_cut(client):
        other = _run(opens_early, pieces)
        assert (other.judged, other.verdicts, other.dialled, other.ended) == (
            whole.judged,
            whole.verdicts,
            whole.dialled,
            whole.ended,
        )
        _check(other, b"".join(pieces))
    _check(whole, client)


def _decide(handshake: Handshake) -> Verdict:
    match handshake:
        case TlsHello(server_name=name) | HttpRequest(host=name) if name == _ALLOWED:
            return Allow(AllowReason.HOSTNAME, _RULE, "Allowed by its name.")
        case Opaque():
            return Allow(AllowReason.ADDRESS_BOUND, _RULE, "Allowed by its address.")
    return Deny(DenyReason.NAME_NOT_ALLOWED, "No rule covers it.")


def _run(opens_early: bool, pieces: tuple[bytes, ...]) -> Run:
    flow = RelayFlow(opens_early=opens_early, now_s=0.0)
    run = Run(opens_early)
    _carry_out(flow, run, flow.begin())
    for piece in pieces:
        if run.is_unread:
            run.upstream += piece
        elif flow.phase in (FlowPhase.FIRST_BYTES, FlowPhase.HELLO_SENT, FlowPhase.REQUESTS):
            _feed(flow, run, piece)
            _answer(flow, run)
    if not run.is_unread and flow.phase is not FlowPhase.OVER:
        _carry_out(flow, run, flow.client_finished())
    return run


def _feed(flow: RelayFlow, run: Run, piece: bytes) -> None:
    while piece and flow.phase is FlowPhase.REQUESTS and flow.requests is not None and flow.requests.passable_up:
        count = min(len(piece), flow.requests.passable_up)
        run.upstream += piece[:count]
        flow.requests.passed_up(count)
        piece = piece[count:]
    if piece:
        _carry_out(flow, run, flow.receive(piece, 0.0))


def _carry_out(flow: RelayFlow, run: Run, commands: Commands) -> None:
    for command in commands:
        assert not run.ended, "a command behind the end"
        match command:
            case Judge(handshake=handshake):
                run.judged.append(handshake)
                verdict = _decide(handshake)
                run.verdicts.append(isinstance(verdict, Allow))
                _carry_out(flow, run, flow.judged(verdict, is_taught=handshake == Opaque()))
            case Dial(name=name):
                run.dialled.append(name)
                _carry_out(flow, run, flow.upstream_opened())
            case SendUpstream(data=data):
                assert run.verdicts, "bytes go upstream that nobody judged"
                assert all(run.verdicts), "bytes go upstream behind a denial"
                run.upstream += data
            case PassBoth():
                run.is_unread = True
            case Refuse(answer=answer):
                run.ended = "reset" if answer is None else str(answer.status)
            case Abandon():
                run.ended = "abandoned"


def _answer(flow: RelayFlow, run: Run) -> None:
    """The server answers each request that reached it."""
    while flow.phase is FlowPhase.REQUESTS and run.answered < sum(run.verdicts):
        run.answered += 1
        _carry_out(flow, run, flow.responded(_OK))


def _check(run: Run, client: bytes) -> None:
    if not run.upstream:
        return
    first = run.judged[0]
    if isinstance(first, HttpRequest):
        judged = judge((run.upstream,))
        assert judged.wire == run.upstream, "what goes upstream is not as it was judged"
        assert all(head.host == _ALLOWED for head, _ in judged.requests), "upstream is asked for a host that is denied"
        check_upstream_reads(judged)
        assert run.dialled[-1] == _ALLOWED
        return
    assert client.startswith(run.upstream), "what goes upstream is not what the client sent"
    if isinstance(first, TlsHello):
        assert run.dialled[-1] == _ALLOWED
        heard = name_heard_by_openssl(run.upstream)
        assert heard is None or (heard.name or "").lower().removesuffix(".") == _ALLOWED
    elif not run.is_unread:
        assert len(run.upstream) <= FIRST_BYTES_MAX
