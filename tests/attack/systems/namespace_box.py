"""A box made of namespaces, behind the little internet's host namespace as its gateway.

What differs between systems is a :class:`Gateway`: how a box is put under rules, and who answers its DNS. A box has a
network, mount and process namespace of its own, a read-only root file system, a ``/tmp``, and as root the capabilities
that a devbox's root has, so that systems are compared by what their gateways do.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from attack.scene import Box, BrokenAttackError, Rules, Who
from attack.world import populate
from outgate.cli.demo.internet import Internet
from outgate.cli.demo.leftovers import clear_stale
from outgate.cli.demo.namespaces import WIRE
from outgate.dataplane.netns import created, entered, namespace_path, remove_namespace
from outgate.runtime.bundle import CAPABILITIES

if TYPE_CHECKING:
    from support.stage import Stage

IN_BOX = Path(__file__).parents[1] / "in_box"
COMMAND_S_MAX = 60.0
_USER_ID = 1000
_RAW = "CAP_NET_RAW"
_NAT = f"""
table inet attack_nat {{
  chain out {{
    type nat hook postrouting priority srcnat
    oifname "{WIRE}" masquerade
  }}
}}
"""
_SETTINGS = (
    # As container engines set it: inside, nobody has privileges over the network.
    "net.ipv4.ping_group_range=0 2147483647",
    "net.ipv4.ip_unprivileged_port_start=0",
    "net.ipv6.conf.default.accept_dad=0",
)


@dataclass(frozen=True, slots=True)
class Link:
    """One box's link to the gateway; ``number`` from 1 to 254."""

    number: int

    @property
    def interface(self) -> str:
        """The gateway's end."""
        return f"box{self.number}"

    @property
    def gateway4(self) -> str:
        """The gateway's address on it."""
        return f"172.30.{self.number}.1"

    @property
    def gateway6(self) -> str:
        """Likewise."""
        return f"fd30:6f67:{self.number:x}::1"

    @property
    def address4(self) -> str:
        """The box's own address."""
        return f"172.30.{self.number}.2"

    @property
    def address6(self) -> str:
        """Likewise."""
        return f"fd30:6f67:{self.number:x}::2"


class Gateway(Protocol):
    """What a system does in the host namespace, where the calling thread is."""

    def apply(self, link: Link, rules: Rules) -> None:
        """Put the box behind ``link`` under ``rules``; in force when this returns. Called again for other rules."""
        ...

    def resolver(self, link: Link) -> str:
        """The address of the DNS server that the box is told to ask."""
        ...

    def restart(self) -> None:
        """Kill what decides, all of it, and start it again."""
        ...


@contextmanager
def opened_internet() -> Iterator[Internet]:
    """An internet whose host namespace routes and masquerades; the calling thread is there meanwhile."""
    clear_stale()
    with Internet() as internet:
        populate(internet)
        with entered(internet.namespaces.host):
            call("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            call("nft", "-f", "-", given=_NAT)
            yield internet


@dataclass(slots=True)
class NamespaceSystem:
    """See :class:`attack.scene.Running`. A context manager: its boxes and their processes go when it is left."""

    internet: Internet
    gateway: Gateway
    _links: int = 0
    _shared: dict[tuple[Rules, Who, bool], Box] = field(default_factory=dict)
    _undo: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the boxes."""
        self._undo.close()

    def box(self, rules: Rules, who: Who, *, fresh: bool = False, raw_sockets: bool = False) -> Box:
        """A namespace with a link of its own."""
        key = (rules, who, raw_sockets)
        if fresh:
            return self._made(*key)
        if key not in self._shared:
            self._shared[key] = self._made(*key)
        return self._shared[key]

    def restart(self) -> None:
        """See :class:`Gateway`."""
        self.gateway.restart()

    @property
    def stage(self) -> "Stage":
        """There is none: the case should have declared that it needs Outgate."""
        raise BrokenAttackError("This system has no stage; the case lacks needs={Ability.OUTGATE}.")

    def _made(self, rules: Rules, who: Who, raw_sockets: bool) -> "NamespaceBox":
        self._links += 1
        link = Link(self._links)
        # The maker's process id is part of the name, so that what a killed run left is found (cli.demo.leftovers).
        namespace = f"{self.internet.namespaces.host}-b{link.number}"
        with created(namespace):
            call("sysctl", "-qw", *_SETTINGS)
        self._undo.callback(remove_namespace, namespace)
        _connect(self.internet.namespaces.host, namespace, link)
        self.gateway.apply(link, rules)
        folder = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="outgate-attack-")))
        holder = _held(namespace, folder, self.gateway.resolver(link))
        self._undo.callback(_end, holder)
        return NamespaceBox(holder=holder.pid, who=who, raw_sockets=raw_sockets, gateway=self.gateway, link=link)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnteredBox:
    """A place that is entered from outside: the network, mount and process namespaces of ``holder``."""

    holder: int
    who: Who
    raw_sockets: bool

    def python(self, source: str, *, seconds_max: float) -> str:
        """What it leaves running in the background stays until the system ends; only its own end is awaited."""
        command = ["timeout", f"{seconds_max:.0f}", "/usr/bin/python3", "-"]
        # Files, not pipes: a pipe would only end with the last background process that inherited it.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            ran = subprocess.run(
                [*self._entering(), *self._becoming(), *command],
                input=source.encode(),
                stdout=stdout,
                stderr=stderr,
                timeout=seconds_max + 10,
                check=False,
            )
            outputs = []
            for file in (stdout, stderr):
                file.seek(0)
                outputs.append(file.read().decode("utf-8", "replace"))
        if ran.returncode != 0:
            raise BrokenAttackError(f"exit {ran.returncode}\n{''.join(outputs)}")
        return outputs[0]

    def _entering(self) -> Sequence[str]:
        spaces = Path(f"/proc/{self.holder}/ns")
        entries = (f"--net={spaces}/net", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children")
        return ("nsenter", *entries, "--wd=/tmp", "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH=/tmp")

    def _becoming(self) -> Sequence[str]:
        granted = [] if self.who is Who.USER else list(CAPABILITIES)
        if self.raw_sockets:
            granted.append(_RAW)
        wanted = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in granted)])
        identity = "0" if self.who is Who.ROOT else str(_USER_ID)
        inherited = [f"--inh-caps={wanted}", f"--ambient-caps={wanted}"] if granted else ["--inh-caps=-all"]
        return (
            "setpriv",
            f"--reuid={identity}",
            f"--regid={identity}",
            "--clear-groups",
            "--no-new-privs",
            f"--bounding-set={wanted}",
            *inherited,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceBox(EnteredBox):
    """See :class:`attack.scene.Box`."""

    gateway: Gateway
    link: Link

    def apply(self, rules: Rules) -> None:
        """See :class:`Gateway`."""
        self.gateway.apply(self.link, rules)


def call(*command: str, given: str = "") -> str:
    """Run ``command`` with ``given`` on its input where the thread is; its output. Raises RuntimeError with its error."""
    ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed: {ran.stderr.strip()}")
    return ran.stdout


def _connect(host: str, namespace: str, link: Link) -> None:
    add = ("link", "add", link.interface, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    call("ip", "-n", host, *add)
    near, far = ("ip", "-n", host), ("ip", "-n", namespace)
    call(*near, "addr", "add", f"{link.gateway4}/30", "dev", link.interface)
    call(*near, "addr", "add", f"{link.gateway6}/64", "dev", link.interface, "nodad")
    call(*far, "addr", "add", f"{link.address4}/30", "dev", "eth0")
    call(*far, "addr", "add", f"{link.address6}/64", "dev", "eth0", "nodad")
    call(*near, "link", "set", link.interface, "up")
    call(*far, "link", "set", "lo", "up")
    call(*far, "link", "set", "eth0", "up")
    call(*far, "route", "add", "default", "via", link.gateway4)
    call(*far, "route", "add", "default", "via", link.gateway6)


def _held(namespace: str, folder: Path, resolver: str) -> subprocess.Popen[str]:
    """The process that keeps the box's mount and process namespaces; everything in the box ends with it."""
    temporary, resolv = folder / "tmp", folder / "resolv.conf"
    temporary.mkdir()
    temporary.chmod(0o1777)
    resolv.write_text(f"nameserver {resolver}\noptions timeout:1 attempts:2\n", "ascii")
    for program in IN_BOX.glob("*.py"):
        shutil.copy(program, temporary)
    prepare = "\n".join(
        (
            "set -e",
            f"mount --bind {resolv} /etc/resolv.conf",
            f"mount --bind {temporary} /tmp",
            "mount -o remount,bind,ro /",
            "mount -t tmpfs -o mode=755 run /run",
            "mount --bind /proc/sys /proc/sys",
            "mount -o remount,bind,ro /proc/sys",
            "echo ready",
            # As the first process of its namespace it takes everything along when its input ends.
            "exec cat",
        )
    )
    isolated = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", prepare)
    holder = subprocess.Popen(
        ["nsenter", f"--net={namespace_path(namespace)}", *isolated],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if holder.stdout is None or holder.stdout.readline() != "ready\n":
        _end(holder)
        raise RuntimeError("A box could not be made; its error is above.")
    return holder


def _end(holder: subprocess.Popen[str]) -> None:
    for pipe in (holder.stdin, holder.stdout):
        if pipe is not None:
            pipe.close()
    holder.wait(timeout=COMMAND_S_MAX)
