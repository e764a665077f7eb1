"""The relay: every TCP flow of a devbox that has to be judged by the name in its first bytes.

The kernel hands such flows over by TPROXY: they arrive at listeners with IP_TRANSPARENT, the peer's address
says which devbox speaks, the socket's own address is where it wanted to go.
"""

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from select import EPOLLIN
from typing import Final

from outgate.core.pins import TOUCH_S_MAX, PinWrite
from outgate.dataplane.fair_queue import FairQueue
from outgate.dataplane.gate_measures import GateLatencies
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.pipes import PipePool
from outgate.dataplane.records import Recorder
from outgate.dataplane.relay_connection import Connection
from outgate.dataplane.relay_context import DevboxFlows, DueQueue, RelayContext, RelayLimits
from outgate.dataplane.relay_journal import render_record
from outgate.dataplane.relay_upstream import reset
from outgate.dataplane.relay_verdicts import VerdictCache
from outgate.dataplane.resolver import Resolver
from outgate.model.addresses import IPAddress
from outgate.model.verdict import Deny, DenyReason, EnforcementPoint
from outgate.wire.relay_flow import HANDSHAKE_S_MAX

_ACCEPTS_PER_EVENT: Final = 256
"""All devboxes share one queue in the kernel: it is emptied before anything is done for those who stand in it."""
_BEGINS_PER_TURN: Final = 64
"""A beginning costs some hundred microseconds. Devboxes take turns, so that a crowd of one holds up itself alone."""
_BACK_OFF_S: Final = 0.1
"""How long nothing is accepted after the descriptors ran out."""
_SHED_MAX: Final = 64
"""Waiting clients that are reset then, so that they learn of it at once."""
_SWEEP_INTERVAL_S: Final = 0.25
_TOUCH_INTERVAL_S: Final = TOUCH_S_MAX / 2
_TOUCHES_PER_TURN: Final = 256
"""Thousands of idle flows must not hold a busy one up."""
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Relay:
    """Accepts on ``listeners`` (bound, listening, non-blocking, IP_TRANSPARENT; one for each family).

    ``keep_pin`` hears of pins whose life in the kernel has to be renewed because flows use them. ``front_socket``:
    where the tunnel front takes what goes to tunnels.
    """

    def __init__(
        self,
        loop: Loop,
        table: GateTable,
        resolver: Resolver,
        recorder: Recorder,
        *,
        limits: RelayLimits,
        listeners: Sequence[socket.socket],
        keep_pin: Callable[[DevboxEntry, PinWrite], None],
        front_socket: str | None = None,
        latencies: GateLatencies | None = None,
    ) -> None:
        self._context: RelayContext[Connection] = RelayContext(
            loop=loop,
            table=table,
            resolver=resolver,
            recorder=recorder,
            limits=limits,
            pool=PipePool(),
            verdicts=VerdictCache(),
            handshakes=DueQueue(HANDSHAKE_S_MAX),
            dials=DueQueue(limits.dial_s),
            lingers=DueQueue(limits.linger_s),
            front_socket=front_socket,
            latencies=latencies or GateLatencies(),
        )
        self._loop = loop
        self._keep_pin = keep_pin
        self._listeners = tuple(listeners)
        self._flows: dict[str, DevboxFlows[Connection]] = {}
        self._waiting: FairQueue[tuple[DevboxEntry, socket.socket]] = FairQueue()
        self._is_beginning = False
        self._reserve: int | None = _open_reserve()
        self._is_backing_off = False
        self._is_closed = False
        for listener in self._listeners:
            # Accepted sockets inherit both: that saves two calls for each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._listen()
        loop.call_at(loop.now() + _SWEEP_INTERVAL_S, self._sweep)
        loop.call_at(loop.now() + _TOUCH_INTERVAL_S, self._touch_pins)

    def flow_count(self, devbox_id: str) -> int:
        """How many relayed flows the devbox has."""
        flows = self._flows.get(devbox_id)
        return 0 if flows is None else len(flows.flows)

    @property
    def flows_open(self) -> int:
        """How many relayed flows there are."""
        return self._context.flows_open

    def rejudge(self, policy_ids: Collection[str]) -> int:
        """Judge every flow under these policies again, by what it said first; reset those that lost their rule.

        Call it right after the table was swapped. Returns the number of flows reset.
        """
        self._context.verdicts.clear()
        count = 0
        for flows in self._flows.values():
            for connection in [flow for flow in flows.flows if flow.entry.policy_id in policy_ids]:
                deny = connection.judge_again()
                if deny is not None:
                    connection.revoke(deny)
                    count += 1
        return count

    def drop_devbox(self, devbox_id: str) -> int:
        """Reset every flow of a devbox that is gone. Returns how many there were."""
        for _, client in self._waiting.drop(devbox_id):
            reset(client)
        flows = self._flows.pop(devbox_id, None)
        if flows is None:
            return 0
        connections = list(flows.flows)
        for connection in connections:
            connection.end(is_reset=True, error="the devbox is gone")
        return len(connections)

    def close(self) -> None:
        """Reset every flow and stop accepting. The listeners stay the caller's."""
        self._is_closed = True
        self._unlisten()
        for devbox_id in {*self._flows, *self._waiting.owners()}:
            self.drop_devbox(devbox_id)
        self._context.pool.close()
        self._release_reserve()

    def _listen(self) -> None:
        for listener in self._listeners:
            self._loop.register(listener.fileno(), EPOLLIN, self._acceptor(listener))

    def _unlisten(self) -> None:
        for listener in self._listeners:
            self._loop.unregister(listener.fileno())

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            for _ in range(_ACCEPTS_PER_EVENT):
                try:
                    client, peer = listener.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno in _OUT_OF_DESCRIPTORS:
                        self._back_off(listener)
                        return
                    continue  # accept(2): errors of the new connection, which is gone already
                self._admit(client, peer[0])

        return accept

    def _admit(self, client: socket.socket, source: str) -> None:
        entry = self._context.table.find_devbox(source)
        if entry is None:
            reset(client)
            return
        limit = self._flows_limit(entry)
        if limit is not None:
            self._refuse(entry, client, limit)
            return
        self._waiting.put(entry.id, (entry, client))
        if not self._is_beginning:
            self._is_beginning = True
            self._loop.call_soon(self._begin_some)

    def _begin_some(self) -> None:
        for _ in range(min(_BEGINS_PER_TURN, len(self._waiting))):
            self._begin(*self._waiting.take())
        self._is_beginning = len(self._waiting) > 0
        if self._is_beginning:
            self._loop.call_soon(self._begin_some)

    def _begin(self, entry: DevboxEntry, client: socket.socket) -> None:
        flows = self._flows.get(entry.id)
        if flows is None:
            flows = self._flows[entry.id] = DevboxFlows()
        if flows.undecided >= (most := self._context.limits.undecided_per_devbox):
            self._refuse(entry, client, f"This devbox already has {most} flows that have not said what they are.")
            return
        try:
            client.setblocking(False)
            host, port, *_ = client.getsockname()
        except OSError:
            reset(client)
            return
        Connection(self._context, flows, entry, client, (host, port)).start()

    def _refuse(self, entry: DevboxEntry, client: socket.socket, limit: str) -> None:
        recorder, denied = self._context.recorder, Deny(DenyReason.RESOURCE_LIMIT, limit)
        recorder.decisions.decided(EnforcementPoint.RELAY, denied)
        if recorder.has_room(entry.id):
            with suppress(OSError):
                host, port, *_ = client.getsockname()
                recorder.record(render_record(entry, denied, None, host, port))
        else:
            recorder.drop()
        reset(client)

    def _flows_limit(self, entry: DevboxEntry) -> str | None:
        limits = self._context.limits
        if self.flow_count(entry.id) + self._waiting.count(entry.id) >= limits.flows_per_devbox:
            return f"This devbox already has {limits.flows_per_devbox} flows to named hosts."
        if self._context.flows_open + len(self._waiting) >= limits.flows:
            return f"This host already relays {limits.flows} flows."
        return None

    def _back_off(self, listener: socket.socket) -> None:
        """No descriptor is left: reset some of those who wait, then leave the others for a moment."""
        self._release_reserve()
        for _ in range(_SHED_MAX):
            try:
                client, _ = listener.accept()
            except OSError:
                break
            reset(client)
        self._reserve = _open_reserve()
        if not self._is_backing_off:
            self._is_backing_off = True
            self._unlisten()
            self._loop.call_at(self._loop.now() + _BACK_OFF_S, self._listen_again)

    def _listen_again(self) -> None:
        self._is_backing_off = False
        if self._reserve is None:
            self._reserve = _open_reserve()
        if not self._is_closed:
            self._listen()

    def _release_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _sweep(self) -> None:
        if self._is_closed:
            return
        context, now_s = self._context, self._loop.now()
        for connection in context.handshakes.take_due(now_s):
            connection.expire_handshake()
        for connection in context.dials.take_due(now_s):
            connection.fail("no connection in time")
        for connection in context.lingers.take_due(now_s):
            connection.end(is_reset=True)
        self._loop.call_at(now_s + _SWEEP_INTERVAL_S, self._sweep)

    def _touch_pins(self) -> None:
        """Keep the pins that flows use, a few at a time."""
        if self._is_closed:
            return
        for devbox_id in [devbox_id for devbox_id, flows in self._flows.items() if not flows.flows]:
            del self._flows[devbox_id]
        self._loop.call_at(self._loop.now() + _TOUCH_INTERVAL_S, self._touch_pins)
        self._touch_some(iter([flow for flows in self._flows.values() for flow in flows.flows]), set())

    def _touch_some(self, connections: Iterator[Connection], seen: set[tuple[str, IPAddress]]) -> None:
        some = list(islice(connections, _TOUCHES_PER_TURN))
        for connection in some:
            key = (connection.entry.id, connection.address)
            if key not in seen and connection.is_live:
                seen.add(key)
                write = self._context.table.pins.touch(*key, self._loop.now())
                if write is not None:
                    self._keep_pin(connection.entry, write)
        if some:
            self._loop.call_soon(lambda: self._touch_some(connections, seen))


def _open_reserve() -> int | None:
    """A descriptor to give up when there is no other, so that waiting clients can be told."""
    with suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return None
