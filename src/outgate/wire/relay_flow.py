"""One relayed connection as a state machine that knows no socket.

Events go in as calls, commands come out (:mod:`outgate.wire.relay_commands`); the time is an argument.

::

    FIRST_BYTES ──Judge──► JUDGING ──Dial──► DIALLING ──► PASSING      bytes both ways, unread
         │                    │                   ├─────► REQUESTS     HTTP/1: each request read, judged, written anew
         │                    │                   │                    (PASSING after a 101)
         └────────────────────┴──Refuse──► OVER   ├─────► HELLO_SENT   TLS by its name, while a second hello may come
                                                  │                    (then PASSING)
                                                  └─────► WATCHED      HTTP/1 of a flow that is only reported: it passes
                                                                       as it is, and is read along (then PASSING)

No byte of the client's goes upstream before the verdict on it. With ``opens_early`` (ports other than 80 and
443, where a server may speak first) the address that the box chose is dialled at once and the server's bytes
may come down before the client has said anything; if the client then names a host that was not taught at
this address, that host is dialled instead, or, when the server has been heard already, the flow is refused.

A flow *is reporting* while its policy only reports: the address that the box chose is dialled at once, on every port,
and whatever the client says passes to it unchanged. What would have been refused is asked about or reported, for the
record. When the policy begins to enforce (:meth:`RelayFlow.stop_reporting`), such a flow can be judged again only as
far as it was read like any other: TLS whose name had taught the address, and what is neither TLS nor HTTP.

The time for the first bytes runs from the start, or from the client's first byte when the server may speak first.
"""

from enum import Enum, auto
from typing import Final

from outgate.model.flow import BadHandshake, Handshake, HttpRequest, Opaque, TlsHello
from outgate.model.names import DomainName
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, Verdict
from outgate.wire.client_hello import ClientHelloReader, NeedMore
from outgate.wire.first_bytes import FIRST_BYTES_MAX, FirstBytes, classify_first_bytes
from outgate.wire.http1 import RequestRefused
from outgate.wire.http1_page import RefusalStatus
from outgate.wire.relay_commands import (
    ABANDON,
    DIAL_CHOSEN,
    FINISH_UPSTREAM,
    PASS_BOTH,
    PASS_DOWN,
    PASS_REQUESTS,
    Abandon,
    Answer,
    Commands,
    Dial,
    Judge,
    Refuse,
    Report,
    SendUpstream,
)
from outgate.wire.relay_requests import RequestRelay
from outgate.wire.request_watch import RequestWatch
from outgate.wire.second_hello import SecondHelloWatch, WatchStep

HANDSHAKE_S_MAX: Final = 10.0
"""Time for the first bytes. Programs send them within a round trip; design decision 8 sets the limit."""
_BY_NAME: Final = frozenset({AllowReason.HOSTNAME, AllowReason.DEVBOX_TO_DEVBOX})
"""Reasons that speak of the host which the client names: a flow under them is connected to that host."""
_OPAQUE: Final = Opaque()
_UNREAD: Final = BadHandshake("not inspected")
"""What stands for a flow that passed by its address alone although it could have been read."""


class FlowPhase(Enum):
    """Where a relayed connection is."""

    FIRST_BYTES = auto()
    JUDGING = auto()
    DIALLING = auto()
    PASSING = auto()
    REQUESTS = auto()
    HELLO_SENT = auto()
    """The server's bytes come by :meth:`RelayFlow.responded`, the client's by :meth:`RelayFlow.receive`."""
    WATCHED = auto()
    """The client's bytes come by :meth:`RelayFlow.receive`, save what is passable."""
    OVER = auto()


class RelayFlow:
    """One connection. Each method takes an event and returns what is to be done, in order."""

    __slots__ = (
        "_deadline_s",
        "_handshake",
        "_held",
        "_hello",
        "_hello_bytes",
        "_is_reporting",
        "_is_server_heard",
        "_is_upstream_open",
        "_kind",
        "_name",
        "_opens_early",
        "_phase",
        "_requests",
        "_watch",
        "_watched",
    )

    def __init__(self, *, opens_early: bool, now_s: float, is_reporting: bool = False) -> None:
        self._phase = FlowPhase.FIRST_BYTES
        self._opens_early = opens_early
        self._deadline_s: float | None = None if opens_early else now_s + HANDSHAKE_S_MAX
        self._handshake: Handshake | None = _OPAQUE if opens_early else None
        self._kind = FirstBytes.UNKNOWN
        self._held = b""
        self._hello: ClientHelloReader | None = None
        self._hello_bytes = 0
        self._watch: SecondHelloWatch | None = None
        self._requests: RequestRelay | None = None
        self._watched: RequestWatch | None = None
        self._is_reporting = is_reporting
        self._name: DomainName | None = None
        self._is_upstream_open = False
        self._is_server_heard = False

    @property
    def phase(self) -> FlowPhase:
        """Where it is."""
        return self._phase

    @property
    def deadline_s(self) -> float | None:
        """When to call :meth:`expire`; None while no time is running."""
        return self._deadline_s

    @property
    def handshake(self) -> Handshake | None:
        """What the flow is to be judged by when its policy changes; None while nothing was judged."""
        return self._handshake

    @property
    def name(self) -> DomainName | None:
        """The host whose rule lets the flow pass; None when its address does."""
        return self._name

    @property
    def requests(self) -> RequestRelay | None:
        """The HTTP/1 part, in phase REQUESTS."""
        return self._requests

    @property
    def watched(self) -> RequestWatch | None:
        """What reads requests along, in phase WATCHED."""
        return self._watched

    @property
    def is_reporting(self) -> bool:
        """Whether it passes whatever it says."""
        return self._is_reporting

    def stop_reporting(self) -> None:
        """From here on it passes only by a verdict, like any flow."""
        self._is_reporting = False

    @property
    def wants_client(self) -> bool:
        """Whether :meth:`receive` has a use for more of the client's bytes now."""
        if self._phase is FlowPhase.REQUESTS:
            return self._requests is not None and self._requests.wants_client
        return self._phase in (FlowPhase.FIRST_BYTES, FlowPhase.HELLO_SENT)

    def begin(self) -> Commands:
        """The client's connection is there."""
        return (DIAL_CHOSEN,) if self._opens_early else ()

    def receive(self, data: bytes, now_s: float) -> Commands:
        """The client sent ``data``. Call it in the phases FIRST_BYTES, HELLO_SENT, WATCHED and REQUESTS only."""
        if self._phase is FlowPhase.REQUESTS and self._requests is not None:
            return self._after_refusal(self._requests.receive(data))
        if self._watch is not None:
            return self._step_watch(self._watch.received(data))
        if self._watched is not None:
            self._watched.feed(data)
            return (SendUpstream(data), *self._read_along())
        if self._phase is not FlowPhase.FIRST_BYTES:
            return ()
        if self._deadline_s is None:
            self._deadline_s = now_s + HANDSHAKE_S_MAX
        seen = len(self._held)
        self._held = held = self._held + data if seen else data
        return self._read_first(held, data[: max(0, FIRST_BYTES_MAX - seen)])

    def client_finished(self) -> Commands:
        """The client closed its side."""
        if self._phase in (FlowPhase.REQUESTS, FlowPhase.HELLO_SENT, FlowPhase.WATCHED):
            return (FINISH_UPSTREAM,)
        if self._phase is not FlowPhase.FIRST_BYTES:
            return ()
        if not self._held and not self._opens_early:
            return self._end(ABANDON)
        if not self._held and self._is_reporting:
            return self._pass_on()
        self._kind = classify_first_bytes(self._held, is_all=True)
        if self._kind is FirstBytes.OPAQUE:
            return self._judge(_OPAQUE)
        return self._judge(BadHandshake("the connection ends inside its first message"))

    def judged(self, verdict: Verdict, *, is_taught: bool) -> Commands:
        """The verdict that the last Judge asked for.

        ``is_taught``: the name in the handshake is one by which the box learnt the address it chose, so that
        this address will do.
        """
        if self._phase is FlowPhase.REQUESTS and self._requests is not None:
            return self._after_refusal(self._requests.judged(verdict if isinstance(verdict, Deny) else None))
        if self._phase not in (FlowPhase.JUDGING, FlowPhase.WATCHED):
            return ()
        if isinstance(verdict, Deny):
            return self._refuse(verdict)
        if self._phase is FlowPhase.WATCHED:
            return self._read_along()
        return self._pass_reported(is_taught=is_taught) if self._is_reporting else self._let_pass(verdict, is_taught)

    def _let_pass(self, verdict: Verdict, is_taught: bool) -> Commands:
        self._note_name(verdict)
        target = None if is_taught else self._name
        self._phase = FlowPhase.DIALLING
        if self._opens_early and target is None:
            return self._start_passing() if self._is_upstream_open else ()
        if self._is_server_heard:
            return self._refuse(
                Deny(DenyReason.NOT_RESOLVED, f"The server at this address spoke first, and is not {target}'s.")
            )
        self._is_upstream_open = False
        return (DIAL_CHOSEN if target is None else Dial(target),)

    def upstream_opened(self) -> Commands:
        """The connection that the last Dial asked for is there."""
        self._is_upstream_open = True
        if self._phase is FlowPhase.DIALLING:
            return self._start_passing()
        return (PASS_DOWN,)

    def server_heard(self) -> None:
        """A byte of the server's went to the client."""
        self._is_server_heard = True

    def responded(self, data: bytes) -> Commands:
        """In the phases HELLO_SENT and REQUESTS: the server sent ``data``, which is on its way to the client."""
        if self._watch is not None:
            return self._step_watch(self._watch.answered(data))
        return self._after_response(self._requests.responded(data) if self._requests is not None else ())

    def server_finished(self) -> Commands:
        """In phase HELLO_SENT: the server closed its side, and so asks for nothing any more."""
        return () if self._watch is None else self._step_watch(self._watch.server_finished())

    def passed_down(self, count: int) -> Commands:
        """In phase REQUESTS: ``count`` bytes of the server's went to the client unread."""
        return self._after_response(self._requests.passed_down(count) if self._requests is not None else ())

    def expire(self, now_s: float) -> Commands:
        """Time passed. Refuses the flow when its first bytes are overdue."""
        if self._phase is not FlowPhase.FIRST_BYTES or self._deadline_s is None or now_s < self._deadline_s:
            return ()
        sentence = f"The first bytes did not say what this is within {HANDSHAKE_S_MAX:.0f} s."
        return self._refuse_or_report(Deny(DenyReason.HANDSHAKE_TIMEOUT, sentence))

    def refuse(self, deny: Deny) -> Commands:
        """End it for a reason that was found outside: no address of the named host may be dialled, say."""
        return self._refuse(deny)

    def _read_first(self, held: bytes, data: bytes) -> Commands:
        kind = self._kind
        if kind is FirstBytes.UNKNOWN:
            kind = self._kind = classify_first_bytes(held[:FIRST_BYTES_MAX])
            data = held[:FIRST_BYTES_MAX]
        match kind:
            case FirstBytes.TLS:
                return self._read_hello(data)
            case FirstBytes.HTTP:
                return self._read_request(data)
            case FirstBytes.OPAQUE:
                return self._judge(_OPAQUE)
            case FirstBytes.UNKNOWN:
                return self._refuse_long() if len(held) >= FIRST_BYTES_MAX else ()

    def _read_hello(self, data: bytes) -> Commands:
        if self._hello is None:
            self._hello = ClientHelloReader()
        result = self._hello.feed(data)
        if not isinstance(result, NeedMore):
            self._hello_bytes = self._hello.consumed
            return self._judge(result)
        return self._refuse_long() if len(self._held) >= FIRST_BYTES_MAX else ()

    def _read_request(self, data: bytes) -> Commands:
        if self._requests is None:
            self._requests = RequestRelay()
        result = self._requests.first(data)
        if result is None:
            return self._refuse_long() if len(self._held) >= FIRST_BYTES_MAX else ()
        return self._refuse_long() if isinstance(result, RequestRefused) else self._judge(result)

    def _judge(self, handshake: Handshake) -> Commands:
        self._phase = FlowPhase.JUDGING
        self._deadline_s = None
        self._handshake = handshake
        self._hello = None
        return (Judge(handshake),)

    def _note_name(self, verdict: Verdict) -> None:
        """Remember what the flow passes by, and what it will be judged by when the policy changes."""
        handshake = self._handshake
        if isinstance(verdict, Allow) and verdict.reason in _BY_NAME:
            if isinstance(handshake, TlsHello):
                self._name = handshake.server_name
            elif isinstance(handshake, HttpRequest):
                self._name = handshake.host
        elif handshake is not _OPAQUE:
            # Allowed by its address alone: it goes to that address whatever it names, and requests pass
            # unread. So no name may ever vouch for it, should the policy change.
            self._requests = None
            self._handshake = _UNREAD

    def _pass_reported(self, *, is_taught: bool) -> Commands:
        """Go on to the address that the box chose, whatever was said; and remember what can be judged again."""
        handshake = self._handshake
        if isinstance(handshake, TlsHello) and is_taught:
            self._name = handshake.server_name
        elif handshake is not _OPAQUE:
            self._watched = None if self._requests is None else self._requests.watch()
            self._handshake = _UNREAD
        return self._pass_on()

    def _pass_on(self) -> Commands:
        self._requests = None
        self._hello = None
        self._deadline_s = None
        self._phase = FlowPhase.DIALLING
        return self._start_passing() if self._is_upstream_open else ()

    def _refuse_or_report(self, deny: Deny) -> Commands:
        """For what the first bytes lack."""
        if not self._is_reporting:
            return self._refuse(deny)
        self._handshake = _UNREAD
        return (Report(deny), *self._pass_on())

    def _read_along(self) -> Commands:
        handshake = None if self._watched is None else self._watched.next()
        if handshake is not None:
            return (Judge(handshake),)
        if self._watched is None or self._watched.is_over:
            self._watched = None
            self._phase = FlowPhase.PASSING
            return (PASS_BOTH,)
        return ()

    def _start_passing(self) -> Commands:
        held, self._held = self._held, b""
        if self._watched is not None:
            self._phase = FlowPhase.WATCHED
            return (SendUpstream(held), *self._read_along())
        if self._requests is not None:
            self._phase = FlowPhase.REQUESTS
            return self._after_refusal((PASS_REQUESTS, *self._requests.start()))
        if isinstance(self._handshake, TlsHello):
            self._phase = FlowPhase.HELLO_SENT
            self._watch = SecondHelloWatch(self._handshake.server_name)
            rest = held[self._hello_bytes :]
            sent = SendUpstream(held[: self._hello_bytes])
            return (sent, *self._step_watch(self._watch.received(rest))) if rest else (sent,)
        self._phase = FlowPhase.PASSING
        return (SendUpstream(held), PASS_BOTH) if held else (PASS_BOTH,)

    def _step_watch(self, step: WatchStep) -> Commands:
        sent: Commands = (SendUpstream(step.wire),) if step.wire else ()
        if step.refusal is not None and self._is_reporting:
            return (*sent, *self._pass_second(step.refusal))
        if step.refusal is not None:
            self._watch = None
            return (*sent, *self._refuse(Deny(DenyReason.BAD_HANDSHAKE, step.refusal)))
        if step.is_over:
            self._watch = None
            self._phase = FlowPhase.PASSING
            return (*sent, PASS_BOTH)
        return sent

    def _pass_second(self, why: str) -> Commands:
        """What followed the hello would have been refused; it passes, and no name vouches for the flow any more."""
        held = b"" if self._watch is None else self._watch.held
        self._watch, self._name, self._handshake = None, None, _UNREAD
        self._phase = FlowPhase.PASSING
        return (Report(Deny(DenyReason.BAD_HANDSHAKE, why)), SendUpstream(held), PASS_BOTH)

    def _after_response(self, commands: Commands) -> Commands:
        if PASS_BOTH in commands:
            self._phase = FlowPhase.PASSING
            self._requests = None
        return self._after_refusal(commands)

    def _after_refusal(self, commands: Commands) -> Commands:
        if any(isinstance(command, Refuse) for command in commands):
            self._phase = FlowPhase.OVER
        return commands

    def _refuse_long(self) -> Commands:
        sentence = f"The first bytes do not end within {FIRST_BYTES_MAX // 1024} KiB."
        return self._refuse_or_report(Deny(DenyReason.HANDSHAKE_TOO_LONG, sentence))

    def _refuse(self, deny: Deny) -> Commands:
        if self._kind is not FirstBytes.HTTP or self._phase is FlowPhase.WATCHED:
            return self._end(Refuse(deny, None))
        if self._requests is not None:
            return self._end(self._requests.refusal(deny))
        return self._end(Refuse(deny, Answer(RefusalStatus.FORBIDDEN, None, with_body=True)))

    def _end(self, command: Refuse | Abandon) -> Commands:
        self._phase = FlowPhase.OVER
        self._held = b""
        self._deadline_s = None
        return (command,)
