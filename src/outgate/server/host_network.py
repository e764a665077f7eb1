"""The driver of this host, made where it will live: its pool chosen once and remembered."""

from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path

import structlog

from outgate.core.ranges import always_denied_networks
from outgate.dataplane.layout import choose_layout, uplink_host_name
from outgate.dataplane.linux import LinuxDriver
from outgate.dataplane.ruleset import RulesetOptions
from outgate.dataplane.uplink import HostNetwork
from outgate.settings import Settings

POOL_FILE = "pool4"


def open_driver(settings: Settings) -> LinuxDriver:
    """A driver for the network namespace that the calling thread is in. Raises DriverError and NoFreePoolError."""
    stored = settings.agent_dir / POOL_FILE
    host = HostNetwork()
    try:
        used = host.observe_networks(uplink_host_name(settings.instance_id))
    finally:
        host.close()
    pool = _pool_to_use(_read_pool(stored), settings.devbox_network4)
    layout = choose_layout(settings.instance_id, used, network4=pool)
    stored.write_text(f"{layout.pool4}\n", "ascii")
    options = RulesetOptions(always_denied_networks(), flows_per_devbox_max=settings.flows_per_devbox)
    return LinuxDriver(layout, options)


def _pool_to_use(stored: IPv4Network | None, wanted: IPv4Network | None) -> IPv4Network | None:
    """The pool that is in use stays as long as the setting allows it: running devboxes have addresses of it."""
    if stored is None:
        return wanted
    if wanted is None or stored.subnet_of(wanted):
        return stored
    structlog.get_logger("host_network").warning("pool_changed", before=str(stored), now=str(wanted))
    return wanted


def _read_pool(path: Path) -> IPv4Network | None:
    try:
        return IPv4Network(path.read_text("ascii").strip())
    except (OSError, AddressValueError, NetmaskValueError, ValueError):
        return None
