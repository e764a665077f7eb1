"""One relayed connection: the sockets around a :class:`~outgate.wire.relay_flow.RelayFlow`.

Sockets are watched edge-triggered and each is registered once. What became ready while it was of no use is
remembered (``is_client_ready``) instead of being asked for again.
"""

import errno
import select
import socket
from typing import TYPE_CHECKING, Final

from outgate.core.decide import WEB_PORTS, is_reported, report
from outgate.dataplane.relay_dial import Connected, connect_front
from outgate.dataplane.relay_hello import pump_answer, pump_behind_hello
from outgate.dataplane.relay_http import pump_requests, pump_responses, pump_watched
from outgate.dataplane.relay_journal import FlowJournal, name_of
from outgate.dataplane.relay_linger import Lingering, LingerState
from outgate.dataplane.relay_pump import Channel, Pumped
from outgate.dataplane.relay_upstream import EVENTS, READ_BYTES, Upstream, reset
from outgate.dataplane.relay_verdicts import may_open_early, parse_address
from outgate.model.flow import TlsHello, Unseen
from outgate.model.tunnels import InsideHello
from outgate.model.verdict import Deny, DenyReason
from outgate.wire.http1_page import render_refusal
from outgate.wire.relay_commands import (
    Answer,
    Command,
    Commands,
    Dial,
    FinishUpstream,
    Judge,
    PassBoth,
    PassDown,
    PassRequests,
    Refuse,
    Report,
    SendUpstream,
)
from outgate.wire.relay_flow import FlowPhase, RelayFlow

if TYPE_CHECKING:
    from outgate.dataplane.gate_table import DevboxEntry
    from outgate.dataplane.relay_context import DevboxFlows, RelayContext
    from outgate.dataplane.relay_target import DialEnd
    from outgate.model.addresses import IPAddress
    from outgate.model.flow import Handshake
    from outgate.model.names import DomainName
    from outgate.model.verdict import Verdict

_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_BROKEN: Final = select.EPOLLHUP | select.EPOLLERR
_CLIENT_EVENTS: Final = EVENTS & ~select.EPOLLOUT
"""Clients are watched for room only once they lack it: most never do."""


class Connection:
    """The client's socket, the upstream one, and the two channels between them."""

    __slots__ = (
        "_address",
        "_client",
        "_dial_s",
        "_entry",
        "_first_byte_s",
        "_flows",
        "_host",
        "_is_over",
        "_is_registered",
        "_is_undecided",
        "_journal",
        "_lingering",
        "_port",
        "_started_s",
        "_taught",
        "_upstream",
        "_watches_client_out",
        "context",
        "down",
        "flow",
        "is_client_ready",
        "up",
    )

    def __init__(
        self,
        context: "RelayContext[Connection]",
        flows: "DevboxFlows[Connection]",
        entry: "DevboxEntry",
        client: socket.socket,
        destination: tuple[str, int],
    ) -> None:
        self.context = context
        self._flows = flows
        self._entry = entry
        self._client = client
        self._host, self._port = host, port = destination
        self._address: IPAddress = parse_address(host)
        self._started_s = now_s = context.loop.now()
        self._first_byte_s: float | None = None
        self._dial_s = now_s
        self._taught: tuple[DomainName, ...] = ()
        self._upstream = Upstream(context.loop)
        self._lingering: Lingering | None = None
        self._journal = FlowJournal(context.recorder, entry, host, port)
        self._is_over = False
        self._is_registered = False
        self._is_undecided = True
        self._watches_client_out = False
        self.is_client_ready = False
        """The client's socket may hold bytes, or its end, that no event will tell of again."""
        client_fd = client.fileno()
        self.up = Channel(client_fd, -1)
        self.down = Channel(-1, client_fd)
        is_reporting = self._is_reported()
        # On web ports the client speaks first, so that nothing need be dialled before it has.
        opens_early = (is_reporting or port not in WEB_PORTS) and self._may_open_early()
        self.flow = RelayFlow(opens_early=opens_early, now_s=now_s, is_reporting=is_reporting)

    @property
    def entry(self) -> "DevboxEntry":
        """The devbox that opened it."""
        return self._entry

    @property
    def address(self) -> "IPAddress":
        """The address that the devbox chose."""
        return self._address

    @property
    def is_live(self) -> bool:
        """Whether bytes may still pass: it is neither over nor being seen off."""
        return not self._is_over and self._lingering is None

    # Events

    def start(self) -> None:
        """Begin: the client was just accepted."""
        context = self.context
        self._flows.flows.add(self)
        self._flows.undecided += 1
        context.flows_open += 1
        if self.flow.deadline_s is not None:
            context.handshakes.put(self, context.loop.now())
        self.run(self.flow.begin())
        # The first bytes are often there already: reading before registering saves a turn of the loop.
        self._read_first()
        if not self._is_over:
            self._is_registered = True
            events = EVENTS if self._watches_client_out else _CLIENT_EVENTS
            context.loop.register(self._client.fileno(), events, self._on_client)

    def expire_handshake(self) -> None:
        """The first bytes are overdue."""
        self.run(self.flow.expire(self.context.loop.now()))

    def fail(self, error: str) -> None:
        """One side broke, or cannot be reached: the other learns it as a reset."""
        self.end(is_reset=True, error=error)

    def judge_again(self) -> Deny | None:
        """Why the flow may not go on under its devbox's policy of now; None when it may."""
        if self.flow.is_reporting and not self._is_reported():
            self.flow.stop_reporting()
        handshake = self.flow.handshake
        if handshake is None or self._is_over or (self._lingering is not None and self.down.is_finished):
            return None
        if self.context.table.get_devbox(self._entry.id) is not self._entry:
            return Deny(DenyReason.UNKNOWN_DEVBOX, "The devbox is gone.")
        verdict = self._verdict_on(handshake)
        return verdict if isinstance(verdict, Deny) else None

    def revoke(self, deny: Deny) -> None:
        """The flow lost its rule: reset both sides."""
        self._journal.refused(deny, has_passed=True)
        self.end(is_reset=True)

    def _on_client(self, events: int) -> None:
        if self._lingering is not None:
            self._linger()
            return
        if events & select.EPOLLRDHUP:
            self.up.is_ending = True
        if events & _READABLE and not self.up.is_scheduled:
            self.pump_up()
            if events & select.EPOLLERR:
                self._fail_when_empty(self.up, "the client broke the connection")
        if events & select.EPOLLOUT and not self.down.is_empty and not self.down.is_scheduled and self.is_live:
            self.pump_down()

    def _on_upstream(self, events: int) -> None:
        if events & select.EPOLLRDHUP:
            self.down.is_ending = True
        if self._upstream.is_connecting:
            if events & _BROKEN:
                self.fail(self._upstream.error())
                return
            if not events & select.EPOLLOUT:
                return
            self._opened()
        if events & _READABLE and not self.down.is_scheduled and self.is_live:
            self.pump_down()
            if events & select.EPOLLERR:
                self._fail_when_empty(self.down, "the server broke the connection")
        if events & select.EPOLLOUT and not self.up.is_empty and not self.up.is_scheduled and self.is_live:
            self.pump_up()

    def _fail_when_empty(self, channel: Channel, error: str) -> None:
        """The channel's source was reset. What it sent before that is on its way still, or was passed on."""
        if self.is_live and channel.is_empty:
            self.fail(error)

    # What the flow asks for

    def run(self, commands: Commands) -> None:
        """Carry out ``commands``, and those that come of them."""
        while commands:
            following: Commands = ()
            for command in commands:
                if not self.is_live:
                    return
                following = self._do(command)
            commands = following

    def _do(self, command: Command) -> Commands:
        match command:
            case Judge(handshake=handshake):
                return self._judge(handshake)
            case SendUpstream(data=data):
                self._send_up(data)
            case PassBoth():
                pass  # the pumps go by the flow's phase
            case PassRequests():
                if self.down.is_source_done:
                    self._end_requests()  # the server, heard early, has left already
            case Dial(name=name):
                self._dial(name)
            case Refuse() | Report():
                self._deny(command)
            case PassDown():
                self.pump_down()
            case FinishUpstream():
                self.up.is_source_done = True
                self.settle_up()
            case _:
                self.end(is_reset=True)
        return ()

    def _judge(self, handshake: "Handshake") -> Commands:
        is_first = self._is_undecided
        if is_first:
            self._note_decided()
            self._taught = self._names_now()
        verdict = self._verdict_on(handshake)
        if is_first and self._first_byte_s is not None:
            took_s = self.context.loop.read_clock() - self._first_byte_s
            self.context.latencies.relay_decision.observe(took_s)
        self._journal.decided(verdict, handshake, is_first=is_first)
        name = name_of(handshake)
        is_taught = (
            name is not None
            and name in self._taught
            and self.context.verdicts.may_dial(self._entry, name, self._address, self._port) is None
        )
        return self.flow.judged(verdict, is_taught=is_taught)

    def _deny(self, command: Refuse | Report) -> None:
        """What the flow found itself: nobody is asked."""
        if isinstance(command, Refuse):
            self._refuse(command.deny, command.answer)
            return
        is_first = self._is_undecided
        self._note_decided()
        self._journal.decided(report(self._entry.policy, command.deny), Unseen(), is_first=is_first)

    def _refuse(self, deny: Deny, answer: Answer | None) -> None:
        has_passed = self._upstream.address is not None and not self._is_undecided
        self._journal.refused(deny, has_passed=has_passed)
        if answer is None:
            self.end(is_reset=True)
            return
        if len(self._flows.refused) >= self.context.limits.refused_per_devbox:
            self.end(is_reset=True)
            return
        self._flows.refused.add(self)
        policy = self._entry.policy.policy
        self._drop_upstream(is_reset=True)
        self._begin_lingering(render_refusal(answer.status, policy.name, deny, answer.host, with_body=answer.with_body))

    # Pumps

    def pump_up(self) -> None:
        """Move what the client sent."""
        match self.flow.phase:
            case FlowPhase.PASSING:
                self.is_client_ready = False
                self._pump(self.up)
            case FlowPhase.REQUESTS:
                pump_requests(self)
            case FlowPhase.FIRST_BYTES:
                self._read_first()
            case FlowPhase.HELLO_SENT:
                pump_behind_hello(self)
            case FlowPhase.WATCHED:
                pump_watched(self)
            case _:
                self.is_client_ready = True

    def pump_down(self) -> None:
        """Move what the server sent."""
        match self.flow.phase:
            case FlowPhase.REQUESTS:
                pump_responses(self)
            case FlowPhase.HELLO_SENT:
                pump_answer(self)
            case _:
                self._pump(self.down)

    def _pump(self, channel: Channel) -> None:
        try:
            why, taken = channel.move(self.context.pool)
        except OSError as error:
            self.fail(error.strerror or "broken")
            return
        if channel is self.down:
            if taken or channel.is_source_done:
                self.flow.server_heard()
            if not channel.is_empty:
                self.watch_client_out()
        if channel.is_source_done:
            self.settle_up() if channel is self.up else self.settle_down()
        elif why is Pumped.WORK_CAP:
            self.schedule(channel)

    def schedule(self, channel: Channel) -> None:
        """Go on with ``channel`` after the others had their turn."""
        if not channel.is_scheduled:
            channel.is_scheduled = True
            self.context.loop.call_soon(self._resume_up if channel is self.up else self._resume_down)

    def _resume_up(self) -> None:
        self.up.is_scheduled = False
        if self.is_live:
            self.pump_up()

    def _resume_down(self) -> None:
        self.down.is_scheduled = False
        if self.is_live:
            self.pump_down()

    def settle_up(self) -> None:
        """Pass the client's end on, once everything it sent is out."""
        up = self.up
        if not up.is_source_done or not up.is_empty or up.is_finished:
            return
        up.is_finished = True
        if self.down.is_finished:
            self.end(is_reset=False)
            return
        try:
            self._upstream.shut()
        except OSError as error:
            self.fail(error.strerror or "broken")

    def settle_down(self) -> None:
        """Pass the server's end on, once everything it sent is out."""
        down = self.down
        if not down.is_source_done or not down.is_empty or down.is_finished:
            return
        if self.up.is_finished:
            self.end(is_reset=False)
        elif self.flow.phase is FlowPhase.REQUESTS:
            self._end_requests()
        else:
            down.is_finished = True
            try:
                self._client.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.fail(error.strerror or "broken")

    def _end_requests(self) -> None:
        """No further request can be answered. The client gets its time to read what came."""
        self._drop_upstream(is_reset=False)
        self._begin_lingering(b"")

    def is_client_spent(self) -> bool:
        """Whether the client's end is the next thing to be read from it. Raises OSError."""
        try:
            return not self._client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False

    def receive_client(self) -> bytes | None:
        """What the client sent, empty at its end, None when nothing is there. Raises OSError."""
        try:
            return self._client.recv(READ_BYTES)
        except BlockingIOError:
            return None

    def receive_upstream(self) -> bytes | None:
        """The same of the server."""
        return self._upstream.receive(READ_BYTES)

    def watch_client_out(self) -> None:
        """Hear when the client takes bytes again. (Upstream sockets are watched for it from the start.)"""
        if not self._watches_client_out:
            self._watches_client_out = True
            if self._is_registered:
                self.context.loop.modify(self._client.fileno(), EVENTS)

    def _read_first(self) -> None:
        flow = self.flow
        while flow.phase is FlowPhase.FIRST_BYTES and not self._is_over:
            try:
                data = self.receive_client()
            except OSError:
                self.end(is_reset=True)
                return
            if data is None:
                break
            is_drained = 0 < len(data) < READ_BYTES and not self.up.is_ending
            self.is_client_ready = not is_drained
            if self._first_byte_s is None:
                self._first_byte_s = self.context.loop.now()
            self.run(flow.receive(data, self.context.loop.now()) if data else flow.client_finished())
            if is_drained:
                break
        if not self.is_live:
            return
        if flow.phase is FlowPhase.FIRST_BYTES:
            if flow.deadline_s is not None:
                self.context.handshakes.put(self, self.context.loop.now())
        elif self.is_client_ready:
            self.pump_up()

    # Upstream

    def _dial(self, name: "DomainName | None") -> None:
        context, upstream = self.context, self._upstream
        self._drop_upstream(is_reset=True)
        self._dial_s = context.loop.now()
        context.dials.put(self, self._dial_s)
        if name is not None and self._address in self._entry.context.tunnel_addresses:
            self._dial_front(name)
            return
        if name is not None:
            upstream.dial_named(
                self._entry, name, self._port, self._on_dialled, table=context.table, resolver=context.resolver
            )
            return
        try:
            fd = upstream.dial_chosen(self._address, self._host, self._port, self._on_upstream)
        except OSError as error:
            self.fail(error.strerror or "cannot connect")
            return
        self.up.sink_fd = self.down.source_fd = fd

    def _dial_front(self, name: "DomainName") -> None:
        is_tls = isinstance(self.flow.handshake, TlsHello)
        hello = InsideHello(self._entry.id, self._entry.account_id, name, is_tls)
        try:
            if self.context.front_socket is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "there is no tunnel front")
            front = connect_front(self.context.front_socket, hello)
        except OSError as error:
            self.fail(f"the tunnel front: {error.strerror or 'cannot connect'}")
        else:
            self._on_dialled(Connected(front, self._address))

    def _on_dialled(self, end: "DialEnd") -> None:
        if isinstance(end, Connected):
            self.up.sink_fd = self.down.source_fd = self._upstream.attach(end, self._on_upstream)
            self._opened()
        elif isinstance(end, Deny):
            self.run(self.flow.refuse(end))
        else:
            self.fail(end.strerror or "cannot connect")

    def _opened(self) -> None:
        self._upstream.is_connecting = False
        self.context.latencies.relay_dial.observe(self.context.loop.now() - self._dial_s)
        self.context.dials.discard(self)
        self.run(self.flow.upstream_opened())
        if self.is_live and self.is_client_ready:
            self.pump_up()

    def _send_up(self, data: bytes) -> None:
        try:
            self.up.send(data)
        except OSError as error:
            self.fail(error.strerror or "broken")

    def _drop_upstream(self, *, is_reset: bool) -> None:
        self.context.dials.discard(self)
        self._upstream.drop(is_reset=is_reset)
        self.up.sink_fd = self.down.source_fd = -1
        self.up.release(self.context.pool)

    # Ends

    def _begin_lingering(self, page: bytes) -> None:
        """Send ``page`` and the end behind what is on its way."""
        self._note_decided()
        self._lingering = Lingering(self._client, self.down)
        try:
            if page:
                self.down.send(page)
        except OSError:
            self.end(is_reset=True)
            return
        self._linger()

    def _linger(self) -> None:
        state = LingerState.BROKEN if self._lingering is None else self._lingering.step(self.context.pool)
        match state:
            case LingerState.SENDING:
                self.watch_client_out()
            case LingerState.SENT:
                self.context.lingers.put(self, self.context.loop.now())
            case LingerState.DONE:
                self.end(is_reset=False)
            case LingerState.BROKEN:
                self.end(is_reset=True)

    def end(self, *, is_reset: bool, error: str = "") -> None:
        """Close both sides, by resets or in peace, and forget the connection."""
        if self._is_over:
            return
        self._is_over = True
        context = self.context
        if self._is_undecided and self.flow.is_reporting and not self.down.moved:
            self._journal.said_nothing()
        self._note_decided()
        context.lingers.discard(self)
        self._drop_upstream(is_reset=is_reset)
        context.loop.forget(self._client.fileno())
        if is_reset:
            reset(self._client)
        else:
            self._client.close()
        self.down.release(context.pool)
        self._flows.flows.discard(self)
        self._flows.refused.discard(self)
        context.flows_open -= 1
        self._journal.ended(self.up.moved, self.down.moved, context.loop.now() - self._started_s, error)

    def _note_decided(self) -> None:
        if self._is_undecided:
            self._is_undecided = False
            self._flows.undecided -= 1
            self.context.handshakes.discard(self)

    # Judgement

    def _names_now(self) -> "tuple[DomainName, ...]":
        return self.context.table.pins.names_of(self._entry.id, self._address, self.context.loop.now())

    def _may_open_early(self) -> bool:
        """Whether the chosen address may be dialled before the client has spoken."""
        self._taught = self._names_now()
        self._journal.learnt(self._taught)
        verdict = may_open_early(self._entry, self._address, self._port, self._taught)
        if isinstance(verdict, Deny):
            return False
        self._journal.opened_early(verdict)
        return True

    def _is_reported(self) -> bool:
        """Whether the flow passes whatever is said of it, because its policy only reports."""
        entry = self._entry
        is_tunnel = self._address in entry.context.tunnel_addresses
        return not is_tunnel and is_reported(entry.policy, self._address, entry.context)

    def _verdict_on(self, handshake: "Handshake") -> "Verdict":
        """The verdict on the flow as what it is.

        By the address and the names that led the box there, or, once it is connected to a named host, by that name
        and the address it really goes to.
        """
        address, taught = self._address, self._taught
        if self.flow.name is not None and self._upstream.address is not None:
            address, taught = self._upstream.address, (self.flow.name,)
        return self.context.verdicts.judge(self._entry, address, self._port, handshake, taught)
