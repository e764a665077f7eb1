"""dnsmasq with ``--nftset``: what an allowed name resolves to may be reached, nothing else.

The set-up that router firmware and small sandboxes use, done with care: names that are not allowed are not forwarded
at all (``local=/#/``), private answers are refused (``stop-dns-rebind``) and special-purpose addresses (RFC 6890) with them, DNS to other servers is redirected, both
families have a set, addresses leave it after an hour, and TCP alone is let through to them. One dnsmasq serves one box,
because its sets are chosen by name and not by who asks. What is known of open flows is not taken back by an update.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attack.scene import Ability, Rules, Running
from attack.systems.gateway_process import killed, opened_gateway, started
from attack.systems.gateway_rules import MAPPED, SPECIAL4, SPECIAL6, TABLE, accepted, put_in_force
from attack.systems.namespace_box import Link, call
from outgate.cli.demo.internet import Internet

NAME = "dnsmasq"
ABILITIES = frozenset(Ability) - {Ability.OUTGATE}
_SET_SPEC = TABLE.replace(" ", "#")


@contextmanager
def opened() -> Iterator[tuple[Running, Internet]]:
    """The system, on an internet of its own."""
    with opened_gateway(DnsmasqGateway) as system:
        yield system


def version() -> str:
    """What is compared."""
    found = re.search(r"version (\S+)", call("dnsmasq", "--version"))
    return f"dnsmasq {found[1] if found else 'of unknown version'}"


@dataclass(slots=True)
class DnsmasqGateway:
    """See :class:`attack.systems.namespace_box.Gateway`."""

    upstream: str
    folder: Path
    _running: dict[Link, subprocess.Popen[bytes]] = field(default_factory=dict)
    _rules: dict[Link, Rules] = field(default_factory=dict)

    def apply(self, link: Link, rules: Rules) -> None:
        """New chains and empty sets, and a dnsmasq that fills them: its lists of names cannot be read again in flight."""
        self._end(link)
        sets = {family: f"names{family}_{link.number}" for family in (4, 6)}
        put_in_force(
            link,
            sets=[f"{name} {{ type ipv{family}_addr; flags timeout; timeout 1h; }}" for family, name in sets.items()],
            forward=[
                *accepted(rules),
                f"ip daddr {{ {', '.join(SPECIAL4)} }} reject",
                f"ip6 daddr {{ {', '.join((*SPECIAL6, MAPPED))} }} reject",
                f"meta l4proto tcp ip daddr @{sets[4]} accept",
                f"meta l4proto tcp ip6 daddr @{sets[6]} accept",
            ],
        )
        for name in sets.values():
            call("nft", "flush", "set", *TABLE.split(), name)
        self._rules[link] = rules
        self._start(link)

    def resolver(self, link: Link) -> str:
        """The gateway's end of the link."""
        return link.gateway4

    def restart(self) -> None:
        """Every dnsmasq; the packet filter and its sets outlive them."""
        for link in tuple(self._running):
            self._end(link)
            self._start(link)

    def start(self) -> None:
        """Each box gets its own, with its rules."""

    def stop(self) -> None:
        """End all of them."""
        for link in tuple(self._running):
            self._end(link)

    def _start(self, link: Link) -> None:
        configuration = self.folder / f"{link.interface}.conf"
        configuration.write_text(render(link, self._rules[link], self.upstream), "ascii")
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}"]
        self._running[link] = started(command, address=link.gateway4, port=53)

    def _end(self, link: Link) -> None:
        process = self._running.pop(link, None)
        if process is not None:
            killed(process)


def render(link: Link, rules: Rules, upstream: str) -> str:
    """The configuration of the dnsmasq of one box."""
    sets = ",".join(f"{family}#{_SET_SPEC}#names{family}_{link.number}" for family in (4, 6))
    lines = [
        "no-resolv",
        "no-hosts",
        "bind-interfaces",
        "user=root",
        "pid-file=",
        "cache-size=1000",
        "stop-dns-rebind",
        f"listen-address={link.gateway4}",
        f"listen-address={link.gateway6}",
    ]
    if rules.everything:
        return "\n".join((*lines, f"server={upstream}", ""))
    lines += ["local=/#/", f"nftset=/#/{sets}"]
    for name in rules.names:
        lines.append(f"server=/{name}/{upstream}")
        if not name.startswith("*."):
            # An entry covers what is below it as well (dnsmasq(8), --server); the rule does not.
            lines.append(f"local=/*.{name}/")
    return "\n".join((*lines, ""))
