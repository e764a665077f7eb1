"""What the gate is told at its start; the agent writes it as the first frame on the control socket."""

from ipaddress import ip_address, ip_network

import msgspec

from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.dns_gate import DeniedAnswer
from outgate.dataplane.driver import FLOWS_PER_DEVBOX_MAX
from outgate.errors import InvalidValueError
from outgate.model.endpoints import parse_endpoints
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name

_DNS_PORT = 53


class GateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="config"):
    """Fixed for the life of one gate process; what changes comes in GateApply.

    ``resolvers``: upstream servers as ``address`` or ``address:port`` (``[address]:port`` for IPv6), in order of
    preference, reached from the namespace the process is started in. ``dns_addresses``: where devboxes ask, in
    ``namespace``. ``relay_port`` 0 takes any free port.
    """

    namespace: str
    """Path of the router namespace."""
    dns_addresses: tuple[str, ...]
    resolvers: tuple[str, ...]
    relay_port: int
    flows_per_devbox: int = FLOWS_PER_DEVBOX_MAX
    """The relay's own bound; the kernel's is the same."""
    dns_port: int = _DNS_PORT
    denied_answer: DeniedAnswer = DeniedAnswer.NXDOMAIN
    has_ipv6: bool = True
    devbox_networks: tuple[str, ...] = ()
    internal_zones: tuple[str, ...] = ()
    address_bound: bool = True
    agent_gateway_hosts: tuple[str, ...] = ()
    mcp_gateway_hosts: tuple[str, ...] = ()
    mirror_hosts: tuple[str, ...] = ()
    tunnel_domain: str | None = None
    front_socket: str | None = None
    """Where the tunnel front takes connections out of devboxes; set together with ``tunnel_domain``."""
    user: tuple[int, int] | None = None
    """The uid and gid that the gate takes on before it reads a byte of a devbox's. Even without capabilities, root
    owns the host's files and may write them. None: it stays who it is."""


def host_context(config: GateConfig) -> HostContext:
    """The part of the decisions' context that the configuration fixes. Raises ValueError for what does not parse."""
    agent_gateway_hosts, agent_gateway_cidrs = parse_endpoints(config.agent_gateway_hosts)
    mcp_gateway_hosts, mcp_gateway_cidrs = parse_endpoints(config.mcp_gateway_hosts)
    mirror_hosts, mirror_cidrs = parse_endpoints(config.mirror_hosts)
    return HostContext(
        devbox_networks=tuple(ip_network(text) for text in config.devbox_networks),
        internal_zones=tuple(parse_domain_name(text) for text in config.internal_zones),
        address_bound=config.address_bound,
        agent_gateway_hosts=agent_gateway_hosts,
        agent_gateway_cidrs=agent_gateway_cidrs,
        mcp_gateway_hosts=mcp_gateway_hosts,
        mcp_gateway_cidrs=mcp_gateway_cidrs,
        mirror_hosts=mirror_hosts,
        mirror_cidrs=mirror_cidrs,
        tunnel_domain=None if config.tunnel_domain is None else parse_domain_name(config.tunnel_domain),
        # Devboxes find tunnels at the address they already know: that of their name server.
        tunnel_addresses=frozenset(map(ip_address, config.dns_addresses if config.tunnel_domain else ())),
    )


def upstream_servers(config: GateConfig) -> tuple[ServerAddress, ...]:
    """The resolvers. Raises :class:`InvalidValueError` when there is none, or one that does not parse."""
    if not config.resolvers:
        raise InvalidValueError("No upstream resolver is known; set OUTGATE_UPSTREAM_DNS=ip[:port].", field="resolvers")
    return tuple(parse_server(text) for text in config.resolvers)


def parse_server(text: str) -> ServerAddress:
    """The resolver that ``text`` names: ``ip``, ``ip:port`` or ``[ip]:port``. Raises :class:`InvalidValueError`."""
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        is_closed = bool(bracket) and (not port or port.startswith(":"))
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
        is_closed = bool(port)
    else:
        address, port, is_closed = text, "", True
    try:
        number = int(port or _DNS_PORT)
        canonical = str(ip_address(address))
    except ValueError:
        is_closed, number, canonical = False, 0, ""
    if not is_closed or not 0 < number <= 0xFFFF:
        raise InvalidValueError(f"{text!r} is no resolver; write ip, ip:port or [ip]:port.", field="resolvers")
    return ServerAddress(canonical, number)
