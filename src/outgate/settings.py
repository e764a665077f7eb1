"""Every setting of the server, read from ``OUTGATE_*`` variables and checked before anything starts.

Names (hosts, zones) stay text here, because this module lies below the model; the composition root
parses them before anything starts (``server/context.py``) and blames the same variables.
docs/settings.md lists what is here, and a test compares the two.
"""

import difflib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic.functional_validators import BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from outgate.errors import SettingError

ENVIRONMENT_PREFIX: Final = "OUTGATE_"
_RUN_ROOT: Final = Path("/run/outgate")
_INSTANCE_ID_LENGTH: Final = 6
_DNS_PORT: Final = 53
_PORT_MAX: Final = 65535
_POOL_PREFIX_LENGTH_MAX: Final = 26
"""Sixty-two addresses: a smaller pool would be full before anybody noticed."""


class DefaultPolicy(StrEnum):
    """What a devbox may reach that was given no policy."""

    ALLOW_ALL = "allow_all"
    DENY_ALL = "deny_all"


class DeniedAnswer(StrEnum):
    """How the DNS gate answers a lookup that the policy denies."""

    NXDOMAIN = "nxdomain"
    REFUSED = "refused"


class RuntimeName(StrEnum):
    """The OCI runtime that makes the sandboxes."""

    RUNC = "runc"
    CRUN = "crun"
    RUNSC = "runsc"


class SshListen(StrEnum):
    """Where the SSH server listens, if not at an address."""

    AUTO = "auto"
    OFF = "off"


class LogLevel(StrEnum):
    """The least severe event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """One JSON object a line, or text for a terminal."""

    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An address and a port, as ``127.0.0.1:8080`` or ``[::1]:8080``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _PORT_MAX):
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.removeprefix("[").removesuffix("]"))


def _parse_listen(value: object) -> SocketAddress:
    if isinstance(value, SocketAddress):
        return value
    host, colon, port = str(value).rpartition(":")
    if not colon:
        raise ValueError("the port is missing")
    return SocketAddress(str(_parse_address(host)), _parse_port(port))


def _parse_optional_listen(value: object) -> SocketAddress | None:
    return None if value is None else _parse_listen(value)


def _parse_ssh_listen(value: object) -> object:
    return SshListen(str(value)) if str(value) in tuple(SshListen) else _parse_listen(value)


def _parse_resolver(text: str) -> SocketAddress:
    """``1.1.1.1``, ``1.1.1.1:5353``, ``::1`` or ``[::1]:5353``."""
    host, colon, port = text.rpartition(":")
    has_port = bool(colon) and (host.startswith("[") or ":" not in host)
    if has_port:
        return SocketAddress(str(_parse_address(host)), _parse_port(port))
    return SocketAddress(str(_parse_address(text)), _DNS_PORT)


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _parse_resolvers(value: object) -> object:
    parts = _split(value)
    if not isinstance(parts, tuple):
        return parts
    return tuple(_parse_resolver(part) if isinstance(part, str) else part for part in parts)


def _parse_networks(value: object) -> object:
    parts = _split(value)
    if not isinstance(parts, tuple):
        return parts
    return tuple(ip_network(part) if isinstance(part, str) else part for part in parts)


def _parse_pool(value: object) -> object:
    if not isinstance(value, str):
        return value
    network = IPv4Network(value)
    if not network.is_private or network.prefixlen > _POOL_PREFIX_LENGTH_MAX:
        raise ValueError("the pool must be private and hold at least 64 addresses")
    return network


def _parse_public_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    has_more = parts.username or parts.query or parts.fragment or parts.path.strip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or has_more:
        raise ValueError("this is no start of a URL")
    if parts.port is not None:
        _parse_port(str(parts.port))
    return f"{parts.scheme}://{parts.netloc}"


def _parse_collector(value: object) -> object:
    if not isinstance(value, str):
        return value
    path = urlsplit(value).path.rstrip("/")
    return f"{_parse_public_url(value.removesuffix('/').removesuffix(path))}{path}"


_SECRET_FIELDS: Final = frozenset({"api_key", "database_url", "metrics_token"})
_MISSPELLED_SIMILARITY: Final = 0.85
"""One or two letters of a name: OUTGATE_DEFAULT_POLCY is a mistake, OUTGATE_SERVICE_HOST is not ours."""

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _setting(default: object, about: str, write: str, **bounds: Any) -> Any:
    """A field: what the docs say about it, and what a person is told to write when the value is bad."""
    return Field(default=default, description=about, json_schema_extra={"write": write}, **bounds)


_ENDPOINTS: Final = (
    "host names, *.patterns, networks or networks:port with commas between them,"
    " for example gateway.example.com,10.9.8.7/32:443"
)


class Settings(BaseSettings):
    """All settings. Made by :func:`load_settings`; immutable afterwards."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    listen: Annotated[SocketAddress, NoDecode, BeforeValidator(_parse_listen)] = _setting(
        "127.0.0.1:8080", "Where the API listens.", "ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080"
    )
    state_dir: Path = _setting(
        "/var/lib/outgate", "Everything that must outlive a restart. Each directory is one installation.", "a directory"
    )
    api_key: SecretStr | None = _setting(
        None, "The first API key, instead of one that is made up and printed.", "at least 16 characters", min_length=16
    )
    database_url: SecretStr | None = _setting(
        None,
        "The store. Unset: SQLite in the state directory.",
        "sqlite:////path/file.db or postgresql+psycopg://user:password@host/name",
    )
    api_user: str | None = _setting(
        None, "The user whom the api process becomes. Unset: `outgate` if there is one, else `nobody`.", "a user's name"
    )
    gate_user: str | None = _setting(
        None,
        "The user whom the gate becomes; neither the api's nor the tunnel front's. Unset: `outgate-gate` if there is"
        " one, else `bin`.",
        "a user's name",
    )
    secret_key_file: Path | None = _setting(
        None,
        "The key under which secrets are stored and URLs are signed, readable by the api's user alone. Several api"
        " processes that share a database need the same. Unset: one is made in the api's directory.",
        "a file that holds 32 bytes in base64 (openssl rand -base64 32)",
    )
    objects_dir: Path | None = _setting(
        None,
        "Where storage objects are kept; api processes that share a database need to share it. Unset: in the api's"
        " directory.",
        "a directory that the api's user can write",
    )
    object_bytes_max: int = _setting(
        5 * 1024**3, "Bytes that one storage object may have.", "a number of bytes from 1", ge=1, le=2**50
    )
    objects_bytes_max: int = _setting(
        50 * 1024**3,
        "Bytes that all storage objects of an account may have.",
        "a number of bytes from 1",
        ge=1,
        le=2**50,
    )
    upload_bytes_max: int = _setting(
        5 * 1024**3, "Bytes that one file uploaded into a devbox may have.", "a number of bytes from 1", ge=1, le=2**50
    )
    public_url: Annotated[str | None, BeforeValidator(_parse_public_url)] = _setting(
        None,
        "The start of the upload and download URLs that are handed out. Unset: what the client itself reached.",
        "http or https and a host, for example https://api.example.com",
    )
    git_url: Annotated[str, BeforeValidator(_parse_public_url)] = _setting(
        "https://github.com",
        "Where code mounts are cloned from; `/OWNER/NAME.git` is put behind it. Devboxes need a policy that allows it.",
        "http or https and a host, for example https://git.example.com",
    )
    default_policy: DefaultPolicy = _setting(
        DefaultPolicy.ALLOW_ALL, "What a devbox without a policy may reach.", "allow_all or deny_all"
    )
    auth_failures_max: int = _setting(
        60,
        "Wrong keys and tokens that one client address may show in a minute; `0`: any number.",
        "a number from 0 to 1000000",
        ge=0,
        le=1_000_000,
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_parse_networks)] = (
        _setting(
            (),
            "Reverse proxies before the API, whose `X-Forwarded-For` says who the client is, and `X-Forwarded-Proto` "
            "whether it came by TLS.",
            "addresses or networks with commas between them, for example 10.0.0.7,fd00::/64",
        )
    )
    policies_max: int = _setting(100, "Policies an account may have.", "a number from 1 to 10000", ge=1, le=10_000)
    build_s_max: int = _setting(
        3600, "How long the build of a blueprint may take, in seconds.", "a number from 1 to 86400", ge=1, le=86_400
    )
    enforce_wait_s: float = _setting(
        10.0,
        "How long the answer to an update waits until the update is in force everywhere, in seconds.",
        "a number from 0 to 25",
        ge=0,
        le=25,
    )
    upstream_dns: Annotated[tuple[SocketAddress, ...], NoDecode, BeforeValidator(_parse_resolvers)] = _setting(
        (),
        "The resolvers to which allowed lookups are forwarded. Unset: those of the host's /etc/resolv.conf.",
        "addresses with commas between them, for example 192.0.2.53,192.0.2.54:5353,[2001:db8::53]:53",
    )
    denied_answer: DeniedAnswer = _setting(
        DeniedAnswer.NXDOMAIN, "The answer to a lookup that the policy denies.", "nxdomain or refused"
    )
    address_bound: bool = _setting(
        True,
        "Whether protocols that are neither TLS nor HTTP may pass to an allowed name's address, on ports other than"
        " 80 and 443.",
        "true or false",
    )
    internal_zones: Names = _setting(
        (), "Zones whose private addresses are welcome.", "domain names with commas between them"
    )
    agent_gateway_hosts: Names = _setting((), "Host names and networks that `allow_agent_gateway` opens.", _ENDPOINTS)
    mcp_gateway_hosts: Names = _setting((), "Host names and networks that `allow_mcp_gateway` opens.", _ENDPOINTS)
    mirror_hosts: Names = _setting((), "Host names and networks that `allow_runloop_mirrors` opens.", _ENDPOINTS)
    tunnel_domain: str | None = _setting(
        None,
        "The whole suffix of tunnel names: `{port}-{key}.` goes before it.",
        "a domain name, for example tunnel.example.com",
    )
    tunnel_listen: Annotated[SocketAddress | None, NoDecode, BeforeValidator(_parse_optional_listen)] = _setting(
        None,
        "Where tunnels, and the API as `https://api.` and the rest of the domain, are served with TLS. Unset: port 443"
        " of the address in OUTGATE_LISTEN. Counts only together with OUTGATE_TUNNEL_DOMAIN, as do the next four.",
        "ADDRESS:PORT, for example 0.0.0.0:443",
    )
    tunnel_http_listen: Annotated[SocketAddress | None, NoDecode, BeforeValidator(_parse_optional_listen)] = _setting(
        None,
        "Where tunnels are served without TLS as well. Unset: nowhere outside of devboxes.",
        "ADDRESS:PORT, for example 0.0.0.0:80",
    )
    tunnel_user: str | None = _setting(
        None,
        "The user whom the tunnel front becomes; not the api's. Unset: `outgate-tunnel` if there is one, else"
        " `daemon`.",
        "a user's name",
    )
    tls_certificate: Path | None = _setting(
        None,
        "The certificate (chain) for `*.` and the tunnel domain, and for the API's name. Unset: one by a local"
        " authority that devboxes trust; see `outgate tls`.",
        "a PEM file",
    )
    tls_key: Path | None = _setting(None, "Its private key.", "a PEM file")
    ssh_listen: Annotated[SocketAddress | SshListen, NoDecode, BeforeValidator(_parse_ssh_listen)] = _setting(
        SshListen.AUTO,
        "Where the SSH server listens. `auto`: port 2222 of the address in OUTGATE_LISTEN, or any other that is free.",
        "ADDRESS:PORT, for example 0.0.0.0:2222, or auto or off",
    )
    ssh_host: str | None = _setting(
        None,
        "What `create_ssh_key` answers as the place of the SSH server. Unset: `ssh.` and the domain where there are"
        " tunnels (it is reached there by TLS), else the address and port where it listens.",
        "a host name, or host:port",
        min_length=1,
        max_length=255,
    )
    devbox_network4: Annotated[IPv4Network | None, BeforeValidator(_parse_pool)] = _setting(
        None,
        "The pool of devbox addresses. Unset: a free /20 out of 10.213.0.0/16.",
        "a private IPv4 network of /26 or larger, for example 10.80.0.0/20",
    )
    flows_per_devbox: int = _setting(
        4096, "Flows that one devbox may have open at once.", "a number from 16 to 65536", ge=16, le=65_536
    )
    runtime: RuntimeName = _setting(RuntimeName.RUNC, "The OCI runtime.", "runc, crun or runsc")
    flows_max: int = _setting(
        1_000_000,
        "Records of decisions that are kept; some 0.4 KiB each.",
        "a number from 1000 to 100000000",
        ge=1000,
        le=100_000_000,
    )
    flow_days_max: int = _setting(
        7, "Days for which records of decisions are kept.", "a number from 1 to 3650", ge=1, le=3650
    )
    webhooks_max: int = _setting(20, "Webhooks an account may have.", "a number from 1 to 1000", ge=1, le=1000)
    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_parse_networks)] = (
        _setting(
            (),
            "Private networks in which webhooks may be; an address of this host must be listed by itself. Unset: public"
            " addresses only.",
            "addresses or networks with commas between them, for example 10.0.0.0/8,192.0.2.7",
        )
    )
    webhook_http_hosts: Names = _setting(
        (),
        "Hosts to which webhooks may be delivered by plain `http`: what they are told can be read on the way.",
        "host names or addresses with commas between them, for example hooks.corp.example",
    )
    metrics_token: SecretStr | None = _setting(
        None,
        "Who shows it as a bearer token may read `/metrics`. Unset: whoever asks on this host itself, by 127.0.0.1 or"
        " ::1 and through no proxy.",
        "at least 16 characters",
        min_length=16,
    )
    otel_endpoint: Annotated[str | None, BeforeValidator(_parse_collector)] = _setting(
        None,
        "An OpenTelemetry collector, which gets a span of each request and a log record of each decision by"
        " OTLP/HTTP. Unset: none. Needs the extra `outgate[otel]`.",
        "http or https, a host, and maybe a path, for example http://127.0.0.1:4318",
    )
    gates: int = _setting(1, "Gate processes. One is what this version has.", "1", ge=1, le=1)
    log_level: LogLevel = _setting(
        LogLevel.INFO, "The least severe event that is logged.", "debug, info, warning or error"
    )
    log_format: LogFormat = _setting(LogFormat.JSON, "JSON objects, or text for a terminal.", "json or console")

    @property
    def instance_id(self) -> str:
        """Six hex digits that tell this installation's kernel objects from another's on the same host."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.state_dir))).hexdigest()[:_INSTANCE_ID_LENGTH]

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and process ids; gone after a reboot."""
        return _RUN_ROOT / self.instance_id

    @property
    def api_key_file(self) -> Path:
        """The first API key, for root alone."""
        return self.state_dir / "api-key"

    @property
    def host_token_file(self) -> Path:
        """What api and agent know each other by."""
        return self.state_dir / "host-token"

    @property
    def api_dir(self) -> Path:
        """What the api process owns: the store, unless a database is named."""
        return self.state_dir / "api"

    @property
    def agent_dir(self) -> Path:
        """What the agent remembers of this host's devboxes."""
        return self.state_dir / "agent"

    @property
    def runtime_dir(self) -> Path:
        """Images, layers and the disks of devboxes."""
        return self.state_dir / "runtime"

    @property
    def api_socket(self) -> Path:
        """Where the agent finds the api."""
        return self.run_dir / "api.sock"

    @property
    def agent_socket(self) -> Path:
        """Where the api finds the agent."""
        return self.run_dir / "agent.sock"

    @property
    def tls_dir(self) -> Path:
        """The local authority and what it certified."""
        return self.state_dir / "tls"

    @property
    def tls_listen(self) -> SocketAddress:
        """Where tunnels are served with TLS, once there is a domain for them."""
        return self.tunnel_listen or SocketAddress(self.listen.host, 443)

    @property
    def terminal_socket(self) -> Path:
        """Where the agent takes requests for terminals; the api looks for it beside ``agent_socket``."""
        return self.run_dir / "terminals.sock"

    @property
    def pty_socket(self) -> Path:
        """Where the tunnel front passes requests for PTY sessions."""
        return self.run_dir / "pty.sock"

    @property
    def ssh_host_key_file(self) -> Path:
        """The SSH server's own key."""
        return self.api_dir / "ssh-host-key"

    @property
    def dial_socket(self) -> Path:
        """Where the agent takes requests for connections into devboxes."""
        return self.run_dir / "dial.sock"

    @property
    def inside_socket(self) -> Path:
        """Where the gate finds the tunnel front."""
        return self.run_dir / "inside.sock"

    @property
    def front_api_socket(self) -> Path:
        """Where the tunnel front finds the api."""
        return self.run_dir / "front-api.sock"

    @property
    def store_url(self) -> str:
        """The database, with its password if it has one."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.api_dir.absolute() / 'outgate.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment, and nothing else: a stray .env file must not open anything."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


def variable_of(field: str) -> str:
    """The environment variable of a field of :class:`Settings`."""
    return ENVIRONMENT_PREFIX + field.upper()


def load_settings(**given: Any) -> Settings:
    """The settings from the environment; values in ``given`` win over it, None counts as not given.

    Raises :class:`SettingError`, which names the variable, its value (secrets excepted) and what to
    write instead.
    """
    _refuse_misspelled(os.environ)
    try:
        return Settings(**{field: value for field, value in given.items() if value is not None})
    except ValidationError as error:
        raise _complaint(error) from None


def _refuse_misspelled(environment: Iterable[str]) -> None:
    """A misspelled OUTGATE_DEFAULT_POLICY=deny_all must not leave everything open.

    Variables that resemble no setting are left alone: orchestrators inject OUTGATE_SERVICE_HOST and the like.
    """
    known = [variable_of(field) for field in Settings.model_fields]
    for variable in environment:
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in known:
            continue
        alike = difflib.get_close_matches(variable, known, n=1, cutoff=_MISSPELLED_SIMILARITY)
        if alike:
            raise SettingError(f"{variable} is not a setting; did you mean {alike[0]}?")


def _complaint(error: ValidationError) -> SettingError:
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    known = Settings.model_fields.get(field)
    if known is None:
        return SettingError(f"{field} is not a setting.")
    extra = known.json_schema_extra
    write = extra["write"] if isinstance(extra, dict) else ""
    shown = "has a value it cannot have" if field in _SECRET_FIELDS else f"is {str(first['input'])!r}"
    return SettingError(f"{variable_of(field)} {shown}; write {write}.")
