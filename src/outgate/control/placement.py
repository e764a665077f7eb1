"""Which host a devbox goes to."""

from sqlalchemy import Connection

from outgate.control.devbox_launch import LAUNCH_FIELD, Architecture, LaunchSpec
from outgate.control.errors import HostUnavailableError
from outgate.control.start_images import StartImage
from outgate.errors import InvalidValueError
from outgate.store.hosts import HostRow, find_host, list_hosts_by_load

_NO_HOST = "There is no host to run a devbox on; start 'outgate serve' or an agent first."
_MACHINES = {Architecture.X86_64: "x86_64", Architecture.ARM64: "aarch64"}


def choose_host(tx: Connection, launch: LaunchSpec, start: StartImage) -> HostRow:
    """The host that has the image and the fewest devboxes, of those that the launch parameters fit.

    Raises InvalidValueError naming what fits none, and HostUnavailableError when there is no host at all.
    """
    if start.host_id is None:
        hosts = list_hosts_by_load(tx)
    else:
        own = find_host(tx, start.host_id)
        hosts = [] if own is None else [own]
    if not hosts:
        raise HostUnavailableError(_NO_HOST)
    hosts = _of_architecture(hosts, launch)
    return (_large_enough(hosts, launch) if launch.is_custom else hosts)[0]


def _of_architecture(hosts: list[HostRow], launch: LaunchSpec) -> list[HostRow]:
    if launch.architecture is None:
        return hosts
    wanted = _MACHINES[launch.architecture]
    fitting = [host for host in hosts if host.architecture in (wanted, None)]
    if not fitting:
        there = ", ".join(sorted({host.architecture or "" for host in hosts}))
        message = f"No host that could run this devbox is {launch.architecture}; there is {there}."
        raise InvalidValueError(message, field=f"{LAUNCH_FIELD}.architecture")
    return fitting


def _large_enough(hosts: list[HostRow], launch: LaunchSpec) -> list[HostRow]:
    """Named sizes are ceilings and fit anywhere; numbers that somebody chose must be there to be had."""
    cores, memory_mib = launch.resources.cpu_cores, launch.resources.memory_mib
    with_cores = [host for host in hosts if host.cpu_cores is None or host.cpu_cores >= cores]
    if not with_cores:
        most = max(host.cpu_cores or 0 for host in hosts)
        message = f"{cores:g} cores are more than a host has; the largest has {most}."
        raise InvalidValueError(message, field=f"{LAUNCH_FIELD}.custom_cpu_cores")
    fitting = [host for host in with_cores if host.memory_mib is None or host.memory_mib >= memory_mib]
    if not fitting:
        most_gib = max(host.memory_mib or 0 for host in with_cores) / 1024
        message = f"{memory_mib // 1024} GiB are more than a host has; the largest has {most_gib:.1f} GiB."
        raise InvalidValueError(message, field=f"{LAUNCH_FIELD}.custom_gb_memory")
    return fitting
