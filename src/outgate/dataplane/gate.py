"""The gate process: DNS gate and relay around one table, in the router namespace, fed by the agent.

Started by the agent as ``python -m outgate.dataplane.gate --control-fd N``, with the configuration as the first
frame on the control socket. Nothing is served before the first full update has been applied; what devboxes send
until then waits in socket buffers. The process ends when the agent's end of the control socket is closed; flows that
the kernel granted go on without it, new names and name-bound flows are closed until the next one stands.
"""

import argparse
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from outgate import privileges
from outgate.core.pins import PinWrite
from outgate.dataplane import netns
from outgate.dataplane.dns_cache import DnsCache
from outgate.dataplane.dns_gate import DnsGate
from outgate.dataplane.dns_log import LookupLog
from outgate.dataplane.dns_lookup import LookupResolver, Lookups
from outgate.dataplane.dns_tcp import DnsTcpListener
from outgate.dataplane.dns_udp import DnsUdpListener
from outgate.dataplane.dns_upstream import DnsUpstream
from outgate.dataplane.gate_config import GateConfig, host_context, upstream_servers
from outgate.dataplane.gate_control import GateControl, receive_config
from outgate.dataplane.gate_measures import GateLatencies, GateMeter
from outgate.dataplane.gate_table import DevboxEntry, GateTable, TableChange
from outgate.dataplane.loop import Loop
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.netns_sockets import NamespaceSockets, SocketSource
from outgate.dataplane.pin_restore import reconcile_pins, rejudge_pins
from outgate.dataplane.pin_writer import KernelPinSets, PinSets, PinWriter
from outgate.dataplane.records import Recorder
from outgate.dataplane.relay import Relay
from outgate.dataplane.relay_context import RelayLimits, limits_for_descriptors
from outgate.dataplane.resolver import Resolver
from outgate.errors import OutgateError
from outgate.model.desired import GateApplied, GateApply, GateReady, GateWarning

_EXPIRE_S: Final = 1.0
_ERROR_REPEAT_S: Final = 10.0
"""A fault that each packet meets is reported once in this time."""
_UNPRIVILEGED_PORTS: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_DNS_PORT: Final = 53
_IP_TRANSPARENT: Final = 19  # linux/in.h; the socket module has no names for these
_IPV6_TRANSPARENT: Final = 75
_GC_THRESHOLDS: Final = (50_000, 20, 50)
_RELAY_BACKLOG: Final = 4096
"""Connections that wait while one turn of the loop is busy. The kernel's somaxconn may allow fewer."""


class RelayPart(Protocol):
    """What the gate asks of the relay."""

    def rejudge(self, policy_ids: frozenset[str]) -> int:
        """Judge the flows of these policies again; returns how many were reset."""
        ...

    def drop_devbox(self, devbox_id: str) -> int:
        """Reset every flow of a devbox; returns how many there were."""
        ...

    @property
    def flows_open(self) -> int:
        """How many relayed flows there are."""
        ...


@dataclass(frozen=True, slots=True)
class RelayNeeds:
    """What the relay is built from. ``keep_pin`` writes a pin that a flow keeps alive to the kernel."""

    loop: Loop
    table: GateTable
    resolver: Resolver
    recorder: Recorder
    keep_pin: Callable[[DevboxEntry, PinWrite], None]
    latencies: GateLatencies


@dataclass(frozen=True, slots=True)
class GateParts:
    """What the gate's surroundings give it: the kernel's pin sets, the host's sockets, and the relay.

    ``make_relay`` is called with the first update, after which the relay may accept; its listeners are open before, on
    ``relay_port``.
    """

    pin_sets: PinSets
    upstream_sockets: SocketSource
    relay_port: int
    make_relay: Callable[[RelayNeeds], RelayPart]


class Gate:
    """All parts of one gate, in the network namespace of the calling thread."""

    def __init__(
        self,
        config: GateConfig,
        control: socket.socket,
        parts: GateParts,
    ) -> None:
        self.loop = Loop(on_error=self._on_error)
        self._next_error_s = 0.0
        self._failure = ""
        self._relay: RelayPart | None = None
        self._parts = parts
        self._control = GateControl(self.loop, control, self._apply, self._end)
        context = host_context(config)
        self._table = GateTable(context)
        self._writer = PinWriter(parts.pin_sets, self.warn)
        self._recorder = Recorder(self.loop, self._control.send_records)
        upstream = DnsUpstream(self.loop, parts.upstream_sockets, upstream_servers(config), warn=self.warn)
        lookups = Lookups(self.loop, upstream, DnsCache())
        log = LookupLog(self.loop, self._recorder)
        self._latencies = latencies = GateLatencies()
        self._dns = dns = DnsGate(
            self.loop,
            self._table,
            lookups,
            self._writer,
            log,
            denied_answer=config.denied_answer,
            tunnel_domain=context.tunnel_domain,
            latencies=latencies,
        )
        addresses = [(address, config.dns_port) for address in config.dns_addresses]
        self._udp = [
            DnsUdpListener(self.loop, self._table, dns, address, on_warning=self.warn, latency=latencies.dns_ready)
            for address in addresses
        ]
        self._tcp = [DnsTcpListener(self.loop, self._table, dns, address) for address in addresses]
        self._resolver = LookupResolver(self.loop, lookups)
        self.loop.at_turn_end(self._writer.commit)
        self._meter = GateMeter(
            loop=self.loop,
            table=self._table,
            recorder=self._recorder,
            dns=dns,
            count_flows=lambda: 0 if self._relay is None else self._relay.flows_open,
            latencies=latencies,
            send=self._control.send_measures,
        )

    def run(self) -> str:
        """Serve until the agent hangs up; returns an empty text then, else what went wrong."""
        self._control.send(GateReady(relay_port=self._parts.relay_port))
        self._expire_pins()
        self._meter.start()
        self.loop.run()
        return self._failure

    def warn(self, code: str, text: str) -> None:
        """Tell the agent that something is degraded or, with an empty text, well again."""
        self._control.send(GateWarning(code=code, text=text))

    def _end(self, text: str) -> None:
        self._failure = text
        self.loop.stop()

    # -- updates

    def _apply(self, update: GateApply) -> GateApplied:
        if self._relay is None and not update.full:
            return GateApplied(revision=update.revision, error="the first update must be a full one.")
        if update == GateApply(revision=update.revision, full=False):
            return GateApplied(revision=update.revision)  # the agent asks whether this loop still turns
        # What is decided already goes out under the table it was decided by.
        self._writer.commit()
        try:
            change = self._table.apply(update)
        except ValueError as error:
            return GateApplied(revision=update.revision, error=str(error))
        try:
            flows_reset = self._enforce(change, is_full=update.full)
        except Exception as error:
            # Half an update is worse than none: the agent starts a gate that begins from what the kernel has.
            self._end(f"an update could not be carried out: {error!r}")
            raise
        return GateApplied(revision=update.revision, flows_reset=flows_reset)

    def _enforce(self, change: TableChange, *, is_full: bool) -> int:
        self._dns.forget()
        for listener in self._udp:
            listener.forget()
        now_s = self.loop.now()
        rejudge_pins(self._table, self._writer, change, now_s)
        if is_full:
            self._read_pins_back(now_s)
        for entry in change.removed:
            for tcp in self._tcp:
                tcp.drop_devbox(entry.id)
        if self._relay is None:
            self._relay = self._begin()
            return 0
        flows_reset = sum(self._relay.drop_devbox(entry.id) for entry in change.removed)
        return flows_reset + self._relay.rejudge(change.policy_ids)

    def _begin(self) -> RelayPart:
        """Start to serve: the table says now who may what."""
        for udp in self._udp:
            udp.start()
        for tcp in self._tcp:
            tcp.start()
        needs = RelayNeeds(
            self.loop, self._table, self._resolver, self._recorder, self._writer.submit_write, self._latencies
        )
        return self._parts.make_relay(needs)

    def _read_pins_back(self, now_s: float) -> None:
        try:
            reconcile_pins(self._table, self._writer, now_s)
        except NetlinkError as error:
            # Fails closed: devboxes have to look up again what they knew.
            self.warn("pins_not_read", f"The kernel's pins could not be read back: {error.message}")

    def _expire_pins(self) -> None:
        now_s = self.loop.now()
        places = [
            (entry.link, key.address)
            for key in self._table.pins.expire(now_s)
            if (entry := self._table.get_devbox(key.devbox_id)) is not None
        ]
        self._writer.delete(places)
        self.loop.call_at(now_s + _EXPIRE_S, self._expire_pins)

    # -- faults

    def _on_error(self, error: Exception) -> None:
        """A callback failed: its query or flow is lost, the others go on."""
        if self.loop.now() < self._next_error_s:
            return
        self._next_error_s = self.loop.now() + _ERROR_REPEAT_S
        sys.stderr.write("".join(traceback.format_exception(error)))
        self.warn("gate_error", f"The gate met a fault of its own: {error!r}")


def _open_relay_listeners(port: int, *, has_ipv6: bool) -> list[socket.socket]:
    """Listeners for what the kernel hands over by TPROXY, on the same port for each family."""
    listeners: list[socket.socket] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6) if has_ipv6 else (socket.AF_INET,):
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            listener.bind(("", port))
            listener.listen(_RELAY_BACKLOG)
            port = listener.getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _make_relay(
    needs: RelayNeeds, listeners: Sequence[socket.socket], limits: RelayLimits, front_socket: str | None
) -> RelayPart:
    return Relay(
        needs.loop,
        needs.table,
        needs.resolver,
        needs.recorder,
        limits=limits,
        listeners=listeners,
        keep_pin=needs.keep_pin,
        front_socket=front_socket,
        latencies=needs.latencies,
    )


def _enter(config: GateConfig) -> None:
    """Move the calling thread into the router namespace, and let it bind port 53 there without a capability."""
    descriptor = os.open(config.namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.enter(descriptor)
    finally:
        os.close(descriptor)
    with suppress(OSError):
        # Sockets for single links are opened long after the capability is gone. If it cannot be set, they fail
        # then, with a warning. Nothing but the gate runs in this namespace.
        _UNPRIVILEGED_PORTS.write_text(f"{min(_DNS_PORT, config.dns_port)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one gate until its agent hangs up; returns the exit status."""
    parser = argparse.ArgumentParser(prog="outgate-gate", description="Outgate's gate; started by the agent.")
    parser.add_argument("--control-fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args(arguments).control_fd)
    # A Ctrl-C at the terminal goes to the whole process group; the agent decides when the gate ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        privileges.die_with_parent(os.getppid())
        failure = _serve(control)
    except (OutgateError, OSError, ValueError) as error:
        failure = str(error)
    if failure:
        sys.stderr.write(f"outgate gate: {failure}\n")
    return 1 if failure else 0


def _serve(control: socket.socket) -> str:
    config = receive_config(control)
    limits = limits_for_descriptors(privileges.raise_descriptor_limit(), config.flows_per_devbox)
    if config.user is not None:
        parent = os.getppid()
        privileges.become_user(privileges.Identity(*config.user))
        privileges.die_with_parent(parent)
    families = tuple({server.family for server in upstream_servers(config)})
    sockets = NamespaceSockets(families, prepare=privileges.keep_capabilities)
    _enter(config)
    listeners = _open_relay_listeners(config.relay_port, has_ipv6=config.has_ipv6)
    parts = GateParts(
        pin_sets=KernelPinSets(),
        upstream_sockets=sockets,
        relay_port=listeners[0].getsockname()[1],
        make_relay=lambda needs: _make_relay(needs, listeners, limits, config.front_socket),
    )
    gate = Gate(config, control, parts)
    privileges.keep_capabilities(privileges.Capability.NET_ADMIN)
    # Caches hold some 100,000 objects that live for minutes: looking through them for cycles every 700 allocations
    # costs a fifth of the time of a forwarded query.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    return gate.run()


if __name__ == "__main__":
    sys.exit(main())
