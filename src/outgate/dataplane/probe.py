"""What this kernel can do, tried out in a throw-away network namespace. Used by ``doctor`` and by ``serve``.

Each check does the thing itself instead of reading a version: kernels are built in many ways. A check that
fails says why the thing is needed and how to get it.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from outgate.dataplane import netns
from outgate.dataplane.conntrack import Conntrack
from outgate.dataplane.links import Rtnetlink
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.nflog import NflogReader
from outgate.dataplane.nfnetlink import Element, Nfnetlink, add_elements, key_link
from outgate.dataplane.nft import Nft
from outgate.dataplane.probe_rules import RULE_PROBES
from outgate.dataplane.rtnetlink import LinkEnd, add_veth
from outgate.dataplane.sock_diag import SockDiag
from outgate.dataplane.uplink import HostNetwork, missing_rule, observe_ipv6_obstacle
from outgate.errors import HostNotCapableError, OutgateError

_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_TABLE: Final = "outgate_probe"
_PROBE_LINK: Final = "ogprobe0"
_PROBE_INDEX: Final = 900
_KERNEL: Final = "the kernel option {} (a distribution kernel has it; check with modprobe)"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried. ``needed``: without it ``serve`` does not start. ``detail``: what went wrong."""

    name: str
    ok: bool
    needed: bool
    why: str
    how: str
    detail: str = ""

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: yes"
        return f"{self.name}: no{f' ({self.detail})' if self.detail else ''}. {self.why} Get it by {self.how}."


def probe_host() -> tuple[Check, ...]:
    """Every check, in the order in which they are worth reading. Leaves nothing behind."""
    checks = list(_probe_capabilities())
    if all(check.ok for check in checks):
        with netns.entered_fresh():
            checks += _probe_namespace()
        checks += _probe_uplink()
    checks += _probe_sandbox()
    return tuple(checks)


def require_capable_host(checks: Iterable[Check]) -> None:
    """Raise HostNotCapableError that names everything needed that failed."""
    missing = [str(check) for check in checks if check.needed and not check.ok]
    if missing:
        raise HostNotCapableError("This machine cannot enforce policies:\n" + "\n".join(missing))


def _probe_capabilities() -> Iterable[Check]:
    status = Path("/proc/thread-self/status").read_text(encoding="ascii")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    for name in ("CAP_NET_ADMIN", "CAP_SYS_ADMIN"):
        yield Check(
            name=name,
            ok=bool(effective >> _CAPABILITIES[name] & 1),
            needed=True,
            why="The agent makes network namespaces, links and packet filter rules.",
            how="running as root (in a container: --privileged)",
        )


def _try(name: str, action: Callable[[], object], *, why: str, how: str, needed: bool = True) -> Check:
    try:
        action()
    except (OutgateError, OSError) as error:
        return Check(name, ok=False, needed=needed, why=why, how=how, detail=str(error).splitlines()[0])
    return Check(name, ok=True, needed=needed, why=why, how=how)


def _in_table(body: str) -> Callable[[], object]:
    """Load a table with this body and remove it again."""

    def load() -> None:
        with Nft() as nft:
            nft.run(f"table inet {_TABLE} {{\n{body}\n}}\n")
            nft.run(f"delete table inet {_TABLE}\n")

    return load


def _probe_namespace() -> Iterable[Check]:
    """Checks in a fresh namespace, which the thread is in."""
    yield _try("veth", _make_veth, why="Devboxes are linked by veth pairs.", how=_option("VETH"))
    for probe in RULE_PROBES:
        yield _try(probe.name, _in_table(probe.body), why=probe.why, how=_option(probe.options))
    yield _try(
        "element timeouts start again",
        _refresh_timeout,
        why="On kernels before 6.12 adding a pin again keeps its old timeout, and the gate deletes it first.",
        how="a kernel from 6.12 on; nothing is lost without",
        needed=False,
    )
    yield _try(
        "conntrack netlink",
        _read_conntrack,
        why="Flows of revoked rules are found by their mark.",
        how=_option("NF_CT_NETLINK, NF_CONNTRACK_MARK"),
    )
    yield _try(
        "nflog",
        _listen_to_log,
        why="Denied packets are reported through it.",
        how=_option("NETFILTER_NETLINK_LOG, NFT_LOG"),
    )
    yield _try(
        "INET_DIAG_DESTROY",
        _destroy_nothing,
        why="Programs notice at once that a flow was revoked; without it, with their next packet.",
        how=_option("INET_DIAG_DESTROY"),
        needed=False,
    )
    yield _try(
        "IPv6",
        _open_ipv6,
        why="Devboxes have IPv6 where the host has it; without it they have none.",
        how="booting without ipv6.disable=1",
        needed=False,
    )


def _option(names: str) -> str:
    return _KERNEL.format(names)


def _make_veth() -> None:
    own = netns.open_own_namespace()
    try:
        with Rtnetlink() as links:
            near = LinkEnd(_PROBE_LINK, _PROBE_INDEX, b"\x02\0\0\0\0\x01")
            far = LinkEnd("ogprobe1", _PROBE_INDEX + 1, b"\x02\0\0\0\0\x02")
            links.do([add_veth(near, far, own, 1500)])
    finally:
        os.close(own)


def _refresh_timeout() -> None:
    with Nft() as nft, Nfnetlink() as netfilter:
        nft.run(f"table inet {_TABLE} {{ set s {{ type ifname; flags timeout; }}; }}\n")
        try:
            for timeout_ms in (10_000, 60_000):
                netfilter.batch(add_elements(_TABLE, "s", [Element(key_link("x"), timeout_ms=timeout_ms)]))
            (element,) = netfilter.dump_elements(_TABLE, "s")
        finally:
            nft.run(f"delete table inet {_TABLE}\n")
    if element.timeout_ms != 60_000:
        raise NetlinkError(errno.EOPNOTSUPP, "refreshing an element's timeout")


def _read_conntrack() -> None:
    with Conntrack() as conntrack:
        conntrack.find_by_mark({1})
        conntrack.forget_by_sources({ip_address("192.0.2.1")})


def _listen_to_log() -> None:
    NflogReader(1).close()


def _destroy_nothing() -> None:
    with SockDiag() as sockets:
        sockets.destroy_tcp([(ip_address("192.0.2.1"), 1, ip_address("192.0.2.2"), 2)])


def _open_ipv6() -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()


def _probe_uplink() -> Iterable[Check]:
    """The network namespace the thread is in, as the host."""
    try:
        host = HostNetwork()
        try:
            routes, drops = host.observe_routes(), host.observe_foreign_drops("ogu")
        finally:
            host.close()
    except OutgateError as error:
        yield Check("uplink", ok=False, needed=True, why="Its routes are read.", how="see above", detail=error.message)
        return
    yield Check(
        name="default route",
        ok=routes.interface4 is not None or routes.interface6 is not None,
        needed=False,
        why="Without one nothing reaches the internet.",
        how="configuring the host's network",
    )
    obstacle = observe_ipv6_obstacle(routes)
    yield Check(
        name="IPv6 for devboxes",
        ok=obstacle is None,
        needed=False,
        why="Without it devboxes have IPv4 only.",
        how="an IPv6 default route, and Linux 6.17 or net.ipv6.conf.all.forwarding=1",
        detail=obstacle or "",
    )
    for drop in drops:
        yield Check(
            name=f"forwarding through {drop.family} {drop.table} {drop.chain}",
            ok=False,
            needed=False,
            why="It drops what it does not know, the uplink included.",
            how=missing_rule(drop, '"ogu*"'),
        )


def _probe_sandbox() -> Iterable[Check]:
    filesystems = Path("/proc/filesystems").read_text(encoding="ascii").split()
    yield Check(
        name="overlay",
        ok="overlay" in filesystems,
        needed=True,
        why="A devbox's root file system is layers and one writable upper.",
        how=_option("OVERLAY_FS"),
    )
    unified = _cgroup2_controllers()
    legacy = _cgroup1_controllers()
    for controller in ("cpu", "memory", "pids"):
        yield Check(
            name=f"cgroup controller {controller}",
            ok=controller in unified or controller in legacy,
            needed=False,
            why="Without it devboxes run without that limit.",
            how="mounting cgroup v2 with that controller (systemd does), or cgroup v1",
            detail="" if controller in unified or controller in legacy else "neither in v2 nor in v1",
        )


def _cgroup2_controllers() -> frozenset[str]:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        try:
            return frozenset((root / "cgroup.controllers").read_text(encoding="ascii").split())
        except OSError:
            continue
    return frozenset()


def _cgroup1_controllers() -> frozenset[str]:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    fields = [line.split() for line in mounts]
    return frozenset(
        option for field in fields if len(field) > 3 and field[2] == "cgroup" for option in field[3].split(",")
    )
