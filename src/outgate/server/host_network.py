"""The driver of this host, made where it will live: its pool chosen once and remembered."""

from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path

from outgate.agent.record import RecordStore
from outgate.core.ranges import always_denied_networks
from outgate.dataplane.apply_steps import StepObserver, ignore_step
from outgate.dataplane.layout import choose_layout, uplink_host_name
from outgate.dataplane.linux import LinuxDriver
from outgate.dataplane.ruleset import RulesetOptions
from outgate.dataplane.uplink import HostNetwork
from outgate.errors import SettingError
from outgate.settings import Settings, variable_of

POOL_FILE = "pool4"
RECORDS = "devboxes"


def open_driver(settings: Settings, on_step: StepObserver = ignore_step) -> LinuxDriver:
    """A driver for the network namespace that the calling thread is in. Raises DriverError and NoFreePoolError."""
    stored = settings.agent_dir / POOL_FILE
    host = HostNetwork()
    try:
        used = host.observe_networks(uplink_host_name(settings.instance_id))
    finally:
        host.close()
    pool = choose_pool(_read_pool(stored), settings.devbox_network4, has_devboxes=_has_devboxes(settings))
    layout = choose_layout(settings.instance_id, used, network4=pool)
    stored.write_text(f"{layout.pool4}\n", "ascii")
    options = RulesetOptions(
        always_denied_networks(),
        flows_per_devbox_max=settings.flows_per_devbox,
        has_tunnels=settings.tunnel_domain is not None,
    )
    return LinuxDriver(layout, options, on_step)


def choose_pool(stored: IPv4Network | None, wanted: IPv4Network | None, *, has_devboxes: bool) -> IPv4Network | None:
    """The pool that was used before, as long as the setting allows it; else what is wanted (None: any that is free).

    Raises :class:`SettingError` when devboxes still have addresses of a pool that is not wanted any more.
    """
    if stored is None or wanted is None or stored.subnet_of(wanted):
        return stored if stored is not None else wanted
    if has_devboxes:
        raise SettingError(
            f"{variable_of('devbox_network4')} is {wanted}, but devboxes of this host still live in {stored}; "
            "shut them down first, or run `outgate teardown`."
        )
    return wanted


def _has_devboxes(settings: Settings) -> bool:
    return any(record.slot is not None for record in RecordStore(settings.agent_dir / RECORDS).all())


def _read_pool(path: Path) -> IPv4Network | None:
    try:
        return IPv4Network(path.read_text("ascii").strip())
    except (OSError, AddressValueError, NetmaskValueError, ValueError):
        return None
