"""Settings that are names: parsed once, before anything starts, and blamed by their variables."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from outgate.control.configuration import ApiSettings
from outgate.control.configuration import DefaultPolicy as ControlDefaultPolicy
from outgate.control.secrets_at_rest import parse_key
from outgate.errors import InvalidValueError, SettingError
from outgate.model.endpoints import parse_endpoints
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, HostPattern, parse_domain_name
from outgate.model.policy import CidrRule
from outgate.model.webhooks import parse_webhook_host
from outgate.settings import Settings, SocketAddress, variable_of

RESOLVER_FILE: Final = Path("/etc/resolv.conf")
_DNS_PORT: Final = 53

_Given = TypeVar("_Given")
_Value = TypeVar("_Value")


def host_context(settings: Settings) -> HostContext:
    """What the operator's settings add to each decision. Raises :class:`SettingError`."""
    agent_gateway_hosts, agent_gateway_cidrs = _parse_endpoints(settings, "agent_gateway_hosts")
    mcp_gateway_hosts, mcp_gateway_cidrs = _parse_endpoints(settings, "mcp_gateway_hosts")
    mirror_hosts, mirror_cidrs = _parse_endpoints(settings, "mirror_hosts")
    return HostContext(
        internal_zones=_parse_all(settings, "internal_zones", parse_domain_name),
        address_bound=settings.address_bound,
        agent_gateway_hosts=agent_gateway_hosts,
        agent_gateway_cidrs=agent_gateway_cidrs,
        mcp_gateway_hosts=mcp_gateway_hosts,
        mcp_gateway_cidrs=mcp_gateway_cidrs,
        mirror_hosts=mirror_hosts,
        mirror_cidrs=mirror_cidrs,
        tunnel_domain=find_tunnel_domain(settings),
    )


def api_settings(settings: Settings) -> ApiSettings:
    """The api's limits and choices. Raises :class:`SettingError`."""
    return ApiSettings(
        default_policy=ControlDefaultPolicy(settings.default_policy.value),
        policies_max=settings.policies_max,
        flows_max=settings.flows_max,
        flow_days_max=settings.flow_days_max,
        build_s_max=settings.build_s_max,
        enforce_wait_s_max=settings.enforce_wait_s,
        context=host_context(settings),
        object_bytes_max=settings.object_bytes_max,
        upload_bytes_max=settings.upload_bytes_max,
        objects_bytes_max=settings.objects_bytes_max,
        public_url=settings.public_url,
        git_url=settings.git_url,
        auth_failures_max=settings.auth_failures_max,
        proxies=settings.trusted_proxies,
        metrics_token=None if settings.metrics_token is None else settings.metrics_token.get_secret_value(),
        webhooks_max=settings.webhooks_max,
        webhook_networks=settings.webhook_networks,
        webhook_http_hosts=_parse_all(settings, "webhook_http_hosts", parse_webhook_host),
    )


def check_names(settings: Settings) -> None:
    """Raise :class:`SettingError` for a name or key among the settings that cannot be one."""
    api_settings(settings)
    if settings.api_key is not None:
        _parse(variable_of("api_key"), settings.api_key.get_secret_value(), parse_key)


def find_tunnel_domain(settings: Settings) -> DomainName | None:
    """The suffix of tunnel names; None where there are none. Raises :class:`SettingError`."""
    text = settings.tunnel_domain
    return None if text is None else _parse(variable_of("tunnel_domain"), text, parse_domain_name)


def reachable(listen: SocketAddress) -> SocketAddress:
    """Where a server on this host that listens there is asked."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the addresses are translated, not bound
    return SocketAddress(everywhere.get(listen.host, listen.host), listen.port)


def find_resolvers(settings: Settings, resolver_file: Path = RESOLVER_FILE) -> tuple[str, ...]:
    """The upstream resolvers as ``address:port``: the setting's, or those of the host as they are now.

    Raises :class:`SettingError` when there is none.
    """
    found = settings.upstream_dns or _read_resolvers(resolver_file)
    if not found:
        raise SettingError(
            f"{resolver_file} names no resolver; set {variable_of('upstream_dns')} to one, for example 192.0.2.53."
        )
    return tuple(str(resolver) for resolver in found)


def _read_resolvers(path: Path) -> tuple[SocketAddress, ...]:
    """The ``nameserver`` lines (resolv.conf(5)), those with a scope left out: they need a link of the host's."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()
    words = (line.split() for line in lines)
    named = (parts[1] for parts in words if len(parts) > 1 and parts[0] == "nameserver")
    return tuple(SocketAddress(address, _DNS_PORT) for address in named if _is_plain_address(address))


def _is_plain_address(text: str) -> bool:
    try:
        return "%" not in str(ip_address(text))
    except ValueError:
        return False


def _parse_endpoints(settings: Settings, field: str) -> tuple[tuple[HostPattern, ...], tuple[CidrRule, ...]]:
    return _parse(variable_of(field), getattr(settings, field), parse_endpoints)


def _parse_all(settings: Settings, field: str, parse: Callable[[str], _Value]) -> tuple[_Value, ...]:
    texts: tuple[str, ...] = getattr(settings, field)
    return tuple(_parse(variable_of(field), text, parse) for text in texts)


def _parse(variable: str, given: _Given, parse: Callable[[_Given], _Value]) -> _Value:
    try:
        return parse(given)
    except InvalidValueError as error:
        raise SettingError(f"{variable}: {error.message}") from None
