"""What leads out of this host: resolvers, uplink, tracked flows. As root, in the host's network namespace."""

import socket
from collections.abc import Iterator
from typing import Final

from outgate.cli.doctor.findings import Finding, Group
from outgate.dataplane import netns
from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.dns_lookup import UpstreamFailure
from outgate.dataplane.dns_upstream import ROOT_SERVERS, DnsUpstream
from outgate.dataplane.flow_table import FULL_AT, FlowTableFill, observe_flow_table
from outgate.dataplane.gate_config import parse_server
from outgate.dataplane.layout import uplink_host_name
from outgate.dataplane.loop import Loop
from outgate.dataplane.uplink import HostNetwork
from outgate.errors import OutgateError
from outgate.server.context import find_resolvers
from outgate.settings import Settings, variable_of

NETWORK: Final = Group("network")


class _OwnSockets:
    """Sockets of the namespace that the thread is in."""

    def take(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """See :class:`~outgate.dataplane.netns_sockets.SocketSource`."""
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def check_network(settings: Settings) -> Iterator[Finding]:
    """All of it; for an installation that runs."""
    yield from check_resolvers(settings)
    yield from _check_uplink(settings)
    yield from _check_flow_table(settings)


def check_resolvers(settings: Settings) -> Iterator[Finding]:
    """Ask each of them, as the gate does."""
    try:
        servers = [parse_server(text) for text in find_resolvers(settings)]
    except OutgateError:
        return  # said with the settings
    for server in servers:
        name, failure = f"resolver {server.address}:{server.port}", ask_resolver(server)
        if failure is None:
            yield NETWORK.passed(name, "answers")
        else:
            remedy = f"see that it runs and answers this host, or name others in {variable_of('upstream_dns')}"
            yield NETWORK.failed(name, failure, remedy)


def ask_resolver(server: ServerAddress) -> str | None:
    """Why that resolver gives no answer, or None when it does; within some five seconds."""
    loop, outcomes = Loop(), list[object]()
    upstream = DnsUpstream(loop, _OwnSockets(), (server,))
    try:
        upstream.ask(ROOT_SERVERS, outcomes.append)
        while not outcomes:
            loop.run_once()
    finally:
        upstream.close()
        loop.close()
    (outcome,) = outcomes
    return outcome.text if isinstance(outcome, UpstreamFailure) else None


def _check_uplink(settings: Settings) -> Iterator[Finding]:
    instance = settings.instance_id
    router, link = f"outgate-{instance}", uplink_host_name(instance)
    remedy = "start the server, or see its log: it makes this again within seconds"
    if not netns.has_namespace(router):
        yield NETWORK.failed("router namespace", f"{router} does not exist.", remedy)
        return
    yield NETWORK.passed("router namespace", router)
    host = HostNetwork()
    try:
        if host.has_link(link):
            yield NETWORK.passed("uplink", link)
        else:
            yield NETWORK.failed("uplink", f"The link {link} does not exist.", remedy)
    finally:
        host.close()


def _check_flow_table(settings: Settings) -> Iterator[Finding]:
    fill = observe_flow_table(f"outgate-{settings.instance_id}")
    if fill is None:
        yield NETWORK.skipped("tracked flows", "The kernel does not say how many there are.")
    else:
        yield grade_flow_table(fill)


def grade_flow_table(fill: FlowTableFill) -> Finding:
    """Whether there is room for new flows."""
    if fill.share < FULL_AT:
        return NETWORK.passed("tracked flows", str(fill))
    return NETWORK.warned(
        "tracked flows",
        f"{fill}: when none is left, new flows of every devbox are dropped.",
        f"sysctl net.netfilter.nf_conntrack_max={fill.limit * 2}, or a lower {variable_of('flows_per_devbox')}",
    )
