"""Two network namespaces and the wire between them: ``host``, where Outgate runs, and ``internet``.

Addresses: the host is 45.45.40.2 and 2a0f:4444:0:40::2; its default routes lead to the internet, which answers for
every address there is (a local route for everything). Public-looking addresses, because Outgate treats the
documentation ranges as what they are: reserved. Nothing here is connected to the machine's own network.
"""

import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outgate.dataplane.netns import created, list_namespaces, namespace_path, remove_namespace
from outgate.errors import OutgateError

WIRE = "wan0"
HOST_ADDRESS4 = "45.45.40.2"
HOST_ADDRESS6 = "2a0f:4444:0:40::2"
_GATEWAY4 = "45.45.40.1"
_GATEWAY6 = "2a0f:4444:0:40::1"
_NETWORK4 = "45.45.40.0/24"
_NETWORK6 = "2a0f:4444:0:40::/64"
_PREFIX = "ogdemo-"


class InternetError(OutgateError):
    """The little internet could not be made, or refused a request."""

    code = "no_internet"


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The names of the two namespaces (as ``ip netns`` knows them)."""

    host: str
    internet: str

    @property
    def host_path(self) -> Path:
        """What ``nsenter --net=`` wants."""
        return namespace_path(self.host)

    @property
    def internet_path(self) -> Path:
        """Likewise, for the far side."""
        return namespace_path(self.internet)


def make_namespaces(*, ipv6: bool = True) -> Namespaces:
    """Two fresh namespaces, joined and routed; needs root. Raises :class:`InternetError` and leaves nothing.

    Without ``ipv6`` the host has no IPv6 default route.
    """
    suffix = f"{os.getpid():x}-{secrets.token_hex(2)}"
    made = Namespaces(f"{_PREFIX}{suffix}-h", f"{_PREFIX}{suffix}-i")
    with created(made.host), created(made.internet):
        _connect(made, ipv6=ipv6)
    return made


def remove_namespaces(namespaces: Namespaces) -> None:
    """Remove both, and with them the wire. May be called twice."""
    for name in (namespaces.host, namespaces.internet):
        remove_namespace(name)


def remove_stale_namespaces() -> tuple[str, ...]:
    """Remove what runs that were killed left behind: namespaces whose maker is gone. The names removed."""
    stale = [name for name in list_namespaces(_PREFIX) if not Path(f"/proc/{_maker_of(name)}").exists()]
    for name in stale:
        remove_namespace(name)
    return tuple(stale)


def _maker_of(name: str) -> int:
    return int(name.removeprefix(_PREFIX).split("-")[0], 16)


def _connect(names: Namespaces, *, ipv6: bool) -> None:
    _ip("-n", names.host, "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", names.internet)
    # Binding to, and answering from, addresses that no interface has.
    _inside(names.internet, "sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1")
    # The kernel's own bounds on what it answers to packets for nobody would hide denials of Outgate's from the tests.
    _inside(
        names.internet, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.conf.all.rp_filter=0"
    )
    _ip("-n", names.host, "addr", "add", f"{HOST_ADDRESS4}/24", "dev", WIRE)
    _ip("-n", names.internet, "addr", "add", f"{_GATEWAY4}/24", "dev", WIRE)
    _ip("-n", names.host, "addr", "add", f"{HOST_ADDRESS6}/64", "dev", WIRE, "nodad")
    _ip("-n", names.internet, "addr", "add", f"{_GATEWAY6}/64", "dev", WIRE, "nodad")
    for name in (names.host, names.internet):
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", WIRE, "up")
    _ip("-n", names.host, "route", "add", "default", "via", _GATEWAY4)
    if ipv6:
        _ip("-n", names.host, "route", "add", "default", "via", _GATEWAY6)
    # Every address is the internet's own, but those on the wire: `throw` sends them on to the main table.
    # Without a rule of its own a namespace keeps both tables in one, where `throw` would mean "unreachable".
    for family in ("-4", "-6"):
        _ip(family, "-n", names.internet, "rule", "add", "pref", "32000", "lookup", "main")
    local = ("-n", names.internet, "route", "add", "table", "local")
    _ip(*local, "throw", _NETWORK4)
    _ip(*local, "local", "0.0.0.0/0", "dev", "lo")
    for network in (_NETWORK6, "fe80::/10"):
        _ip(*local, "throw", network)
    _ip(*local, "local", "::/0", "dev", "lo")


def _inside(namespace: str, command: str) -> None:
    _call(["nsenter", f"--net={namespace_path(namespace)}", "sh", "-c", command])


def _ip(*arguments: str) -> None:
    _call(["ip", *arguments])


def _call(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except subprocess.CalledProcessError as error:
        raise InternetError(f"`{' '.join(command)}` failed: {error.stderr.strip()}.") from error
    except FileNotFoundError as error:
        raise InternetError(f"{command[0]} is missing; install iproute2 and util-linux.") from error
