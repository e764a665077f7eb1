"""What the api is told by its composition root. Nothing here is read from the environment."""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from outgate.model.addresses import IPAddress
from outgate.model.flow import HostContext
from outgate.model.names import DomainName

GIB: Final = 1024**3
AUTH_FAILURES_MAX: Final = 60
"""A program in a loop with an old key is slowed down; people who mistype never notice."""
BODY_BYTES_MAX: Final = 1024 * 1024
REPORT_BYTES_MAX: Final = 16 * 1024 * 1024
"""A report names each devbox of a host with some 200 bytes; this is room for 50,000 and more."""


class DefaultPolicy(StrEnum):
    """What a devbox may reach when nobody gave it a policy."""

    ALLOW_ALL = "allow_all"
    DENY_ALL = "deny_all"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Limits and choices of the api. The defaults are those of an installation without settings.

    ``enforce_wait_s_max``: how long an update's response waits for hosts to enforce it. ``context``: the
    operator's lists, for explanations (hosts judge with their own). ``waits_max``: long polls that one
    account may hold open at once. ``object_bytes_max`` bounds one storage object, ``objects_bytes_max`` all of an
    account, ``upload_bytes_max`` one file that is uploaded into a devbox; ``public_url`` is the start of URLs that
    are handed out, None for what the client itself reached.
    ``git_url`` is the start of the URLs that code mounts are cloned from.
    ``builds_max``: builds of one account at once; ``build_s_max``: how long one may take.
    ``ssh_host`` is where the SSH server is reached, None while it is off.
    ``auth_failures_max``: wrong keys that one client may show in a minute, 0 for any number. ``proxies``: whose
    ``X-Forwarded-For`` says who the client is.
    ``flows_max`` and ``flow_days_max`` bound the flow log. ``metrics_token``: who shows it may read metrics; None
    leaves them to this host.
    ``webhook_networks``: special addresses to which webhooks may be delivered; ``webhook_http_hosts``: hosts that may
    be reached without TLS.
    """

    default_policy: DefaultPolicy = DefaultPolicy.ALLOW_ALL
    policies_max: int = 100
    devboxes_max: int = 10_000
    snapshots_max: int = 10_000
    blueprints_max: int = 1000
    builds_max: int = 20
    build_s_max: int = 3600
    enforce_wait_s_max: float = 2.0
    body_bytes_max: int = BODY_BYTES_MAX
    waits_max: int = 1000
    context: HostContext = field(default_factory=HostContext)
    objects_max: int = 10_000
    object_bytes_max: int = 5 * GIB
    objects_bytes_max: int = 50 * GIB
    upload_bytes_max: int = 5 * GIB
    secrets_max: int = 1000
    configs_max: int = 1000
    keys_max: int = 1000
    public_url: str | None = None
    git_url: str = "https://github.com"
    ssh_host: str | None = None
    auth_failures_max: int = AUTH_FAILURES_MAX
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    flows_max: int = 1_000_000
    flow_days_max: int = 7
    metrics_token: str | None = field(default=None, repr=False)
    webhooks_max: int = 20
    webhook_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    webhook_http_hosts: tuple[DomainName | IPAddress, ...] = ()
