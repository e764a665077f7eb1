"""The HTTP/1 part of a relayed connection: requests judged one by one, responses passed on.

All requests of a connection belong to the host that the first one named, since that is whose server
is at the other end. A later request for another allowed host is answered with 421 (RFC 9110 §15.5.20),
whereupon clients ask again on a connection of their own. A refusal is written only behind the complete
responses to the earlier requests; when their end cannot be told, the server is told that nothing more
comes, and the client's connection closes with the server's.
"""

from typing import TYPE_CHECKING, Final

from outgate.model.flow import BadHandshake, Handshake, HttpRequest
from outgate.model.verdict import Deny, DenyReason
from outgate.wire.http1 import BodyPart, RequestReader, RequestRefused
from outgate.wire.http1_head import RequestHead, Upgrade
from outgate.wire.http1_page import RefusalStatus
from outgate.wire.http1_response import ResponsesState, ResponseTracker
from outgate.wire.relay_commands import (
    FINISH_UPSTREAM,
    PASS_BOTH,
    Answer,
    Command,
    Commands,
    Judge,
    Refuse,
    SendUpstream,
)
from outgate.wire.request_watch import RequestWatch

if TYPE_CHECKING:
    from outgate.model.names import DomainName

PIPELINED_MAX: Final = 64
"""Requests whose responses are outstanding; clients that pipeline at all send fewer than ten."""


class RequestRelay:
    """Requests and responses of one connection. Fed through :class:`~outgate.wire.relay_flow.RelayFlow`."""

    __slots__ = ("_awaits_upgrade", "_head", "_host", "_is_upstream_finished", "_reader", "_refusal", "_tracker")

    def __init__(self) -> None:
        self._reader = RequestReader()
        self._tracker = ResponseTracker()
        self._host: DomainName | None = None
        self._head: RequestHead | RequestRefused | None = None
        """The request that is being judged."""
        self._refusal: Refuse | None = None
        """What ends the connection once the earlier responses are complete."""
        self._awaits_upgrade = False
        self._is_upstream_finished = False

    @property
    def wants_client(self) -> bool:
        """Whether more of the client's bytes are of use now."""
        return not (
            self._awaits_upgrade
            or self._refusal is not None
            or self._head is not None
            or self._tracker.pending >= PIPELINED_MAX
        )

    @property
    def is_refusing(self) -> bool:
        """Whether nothing more of the client's will go upstream."""
        return self._refusal is not None

    @property
    def passable_up(self) -> int:
        """How many of the client's next bytes may go upstream unread."""
        return self._reader.passable

    @property
    def passable_down(self) -> int:
        """How many of the server's next bytes may go to the client unread."""
        return self._tracker.passable

    def passed_up(self, count: int) -> None:
        """``count`` bytes of the client's went upstream unread."""
        self._reader.passed(count)

    def first(self, data: bytes) -> Handshake | RequestRefused | None:
        """What the client's first bytes ask for, None while the head is incomplete."""
        self._reader.feed(data)
        event = self._reader.next()
        if isinstance(event, RequestHead):
            self._head = event
            return HttpRequest(event.host)
        if isinstance(event, RequestRefused):
            self._head = event
            return event if event.is_too_long else BadHandshake(event.detail)
        return None

    def start(self) -> Commands:
        """The first request was allowed and its server is there."""
        head = self._head
        if not isinstance(head, RequestHead):
            return ()
        self._host = head.host
        return self._forward(head)

    def watch(self) -> RequestWatch | None:
        """What goes on reading when requests pass as they are; None when the first one could not be read."""
        return RequestWatch(self._reader, self._head.upgrade) if isinstance(self._head, RequestHead) else None

    def receive(self, data: bytes) -> Commands:
        """The client sent ``data``."""
        self._reader.feed(data)
        return self._advance()

    def judged(self, deny: Deny | None) -> Commands:
        """The verdict on the request that was last handed out by Judge; None when it is allowed."""
        head = self._head
        if head is None:
            return ()
        if deny is not None:
            return self._refuse(self.refusal(deny))
        if isinstance(head, RequestRefused):
            # Whatever the policy says: what cannot be read cannot be written anew.
            return self._refuse(self.refusal(Deny(DenyReason.BAD_HANDSHAKE, f"Request refused: {head.detail}.")))
        if head.host != self._host:
            sentence = f"This connection belongs to {self._host}; ask {head.host} on a connection of its own."
            return self._refuse(
                Refuse(Deny(DenyReason.NOT_RESOLVED, sentence), _answer(RefusalStatus.MISDIRECTED, head))
            )
        return self._forward(head)

    def refusal(self, deny: Deny) -> Refuse:
        """How the request that is being judged is refused."""
        head = self._head
        if isinstance(head, RequestHead):
            return Refuse(deny, _answer(RefusalStatus.FORBIDDEN, head))
        if isinstance(head, RequestRefused) and not head.is_too_long:
            return Refuse(deny, Answer(RefusalStatus.BAD_REQUEST, None, with_body=True))
        return Refuse(deny, Answer(RefusalStatus.FORBIDDEN, None, with_body=True))

    def responded(self, data: bytes) -> Commands:
        """The server sent ``data``, which is on its way to the client."""
        self._tracker.feed(data)
        return self._after_response()

    def passed_down(self, count: int) -> Commands:
        """``count`` bytes of the server's went to the client unread."""
        self._tracker.passed(count)
        return self._after_response()

    def _after_response(self) -> Commands:
        state = self._tracker.state
        if self._refusal is not None:
            return self._refuse(self._refusal)
        if not self._awaits_upgrade:
            return self._advance()
        if state is ResponsesState.UPGRADED:
            rest = self._reader.rest
            return (SendUpstream(rest), PASS_BOTH) if rest else (PASS_BOTH,)
        if state is ResponsesState.COMPLETE:
            self._awaits_upgrade = False
            return self._advance()
        return ()

    def _forward(self, head: RequestHead) -> Commands:
        self._head = None
        may_upgrade = head.upgrade is Upgrade.WEBSOCKET
        self._tracker.expect(head.method, may_upgrade=may_upgrade)
        self._awaits_upgrade = may_upgrade
        return (SendUpstream(head.wire), *self._advance())

    def _advance(self) -> Commands:
        commands: list[Command] = []
        while self.wants_client:
            event = self._reader.next()
            if event is None:
                break
            if isinstance(event, BodyPart):
                commands.append(SendUpstream(event.wire))
                continue
            if isinstance(event, RequestRefused) and event.in_body:
                # Half of it is upstream already. The reset tells the server that the rest never comes.
                deny = Deny(DenyReason.BAD_HANDSHAKE, f"Request refused: {event.detail}.")
                return (*commands, Refuse(deny, None))
            self._head = event
            if isinstance(event, RequestRefused):
                commands.append(Judge(BadHandshake(event.detail)))
            else:
                commands.append(Judge(HttpRequest(event.host)))
            break
        return tuple(commands)

    def _refuse(self, refusal: Refuse) -> Commands:
        """End the connection by ``refusal`` as soon as the earlier responses are complete."""
        state = self._tracker.state
        if state is ResponsesState.COMPLETE:
            return (refusal,)
        self._refusal = refusal
        if state is ResponsesState.UNKNOWN and not self._is_upstream_finished:
            self._is_upstream_finished = True
            return (FINISH_UPSTREAM,)
        return ()


def _answer(status: RefusalStatus, head: RequestHead) -> Answer:
    return Answer(status, head.host, with_body=head.method != b"HEAD")
