"""squid as a peek-and-splice gateway: it reads the server name of a TLS connection, or the Host of a request, and decides.

The set-up of squid's own documentation for interception without certificates (SslPeekAndSplice): the packet filter
redirects ports 80 and 8080, 443 and 8443 to squid, squid peeks at the hello and splices if the name is allowed, or else terminates;
everything else is refused. With care: ``host_verify_strict`` compares a name with what it resolves to, names are matched
by anchored expressions and never by reverse lookups, special-purpose destinations (RFC 6890) are denied, nothing is cached, and
no connection to a server serves a second client (what arrives is counted by connections). Boxes and squid
ask one dnsmasq on the gateway, as squid's documentation wants it for that comparison; it resolves every name, because
squid has no part in DNS. One squid serves all boxes and knows them by their address.
"""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from attack.scene import Ability, Rules, Running
from attack.systems.gateway_process import killed, opened_gateway, started
from attack.systems.gateway_rules import SPECIAL4, SPECIAL6, accepted, put_in_force
from attack.systems.namespace_box import COMMAND_S_MAX, Link, call
from outgate import clock
from outgate.cli.demo.internet import Internet

NAME = "squid"
ABILITIES = frozenset(Ability) - {Ability.OUTGATE}
_RESOLVER = "127.0.0.1"
_PORT, _HTTP_PORT, _TLS_PORT = 3128, 3129, 3130
_POLL_S = 0.01
_USER = "proxy"
_ACCEPTING = "Accepting NAT intercepted SSL bumped HTTPS Socket connections"
"""The last line that squid writes when it has taken its configuration."""

_BASE = """
visible_hostname gateway.internal
pid_filename none
netdb_filename none
coredump_dir {folder}
access_log none
cache_log {folder}/cache.log
cache deny all
server_persistent_connections off
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers {resolver}
host_verify_strict on
http_upgrade_request_protocols WebSocket allow all
http_port 127.0.0.1:{port}
http_port {http_port} intercept
https_port {tls_port} intercept ssl-bump tls-cert={folder}/certificate.pem generate-host-certificates=off
acl step1 at_step SslBump1
acl tunnel method CONNECT
acl private dst {private}
http_access deny private
"""
_PER_BOX = """
acl box{n} src {address4} {address6}
acl hosts{n} dstdom_regex -n -i {names}
acl names{n} ssl::server_name_regex -i {names}
http_access allow box{n} tunnel step1
http_access allow box{n} hosts{n}
"""
_NOTHING = "^$"


@contextmanager
def opened() -> Iterator[tuple[Running, Internet]]:
    """The system, on an internet of its own."""
    with opened_gateway(SquidGateway) as system:
        yield system


def version() -> str:
    """What is compared."""
    found = re.search(r"Version (\S+)", call("squid", "-v"))
    return f"squid {found[1] if found else 'of unknown version'}"


@dataclass(slots=True)
class SquidGateway:
    """See :class:`attack.systems.namespace_box.Gateway`."""

    upstream: str
    folder: Path
    _rules: dict[Link, Rules] = field(default_factory=dict)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """squid, and the dnsmasq that it and the boxes ask."""
        if not self._log.exists():
            self.folder.chmod(0o755)
            certificate = trustme.CA().issue_cert("gateway.internal").private_key_and_cert_chain_pem
            certificate.write_to_path(str(self.folder / "certificate.pem"))
            self._log.touch()
            shutil.chown(self._log, _USER)
        before = self._times_configured()
        self._configure()
        resolver = (
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        )
        self._running = [
            started((*resolver, "--user=root", f"--server={self.upstream}"), address=_RESOLVER, port=53),
            started(("squid", "-N", "-f", str(self._configuration)), address="127.0.0.1", port=_PORT),
        ]
        self._await_configured(before)

    def stop(self) -> None:
        """End both."""
        while self._running:
            killed(self._running.pop())

    def restart(self) -> None:
        """Both; the packet filter outlives them."""
        self.stop()
        self.start()

    def resolver(self, link: Link) -> str:
        """The gateway's end of the link."""
        return link.gateway4

    def apply(self, link: Link, rules: Rules) -> None:
        """squid reads its configuration again; what it has spliced goes on."""
        self._rules[link] = rules
        past_squid = accepted(rules)
        redirected = [
            f"tcp dport {{ 80, 8080 }} redirect to :{_HTTP_PORT}",
            f"tcp dport {{ 443, 8443 }} redirect to :{_TLS_PORT}",
        ]
        put_in_force(link, nat=[*past_squid, *redirected], forward=past_squid)
        before = self._times_configured()
        self._configure()
        self._running[-1].send_signal(signal.SIGHUP)
        self._await_configured(before)

    def _await_configured(self, before: int) -> None:
        deadline_s = clock.monotonic_s() + COMMAND_S_MAX
        while self._times_configured() == before:
            if self._running[-1].poll() is not None or clock.monotonic_s() > deadline_s:
                raise RuntimeError(f"squid did not take its configuration:\n{self._log.read_text()[-2000:]}")
            time.sleep(_POLL_S)

    @property
    def _log(self) -> Path:
        return self.folder / "cache.log"

    @property
    def _configuration(self) -> Path:
        return self.folder / "squid.conf"

    def _times_configured(self) -> int:
        return self._log.read_text("utf-8", "replace").count(_ACCEPTING)

    def _configure(self) -> None:
        self._configuration.write_text(render(self._rules, self.folder), "ascii")


def render(rules: Mapping[Link, Rules], folder: Path) -> str:
    """The configuration of squid for all boxes."""
    base = _BASE.format(
        folder=folder,
        resolver=_RESOLVER,
        port=_PORT,
        http_port=_HTTP_PORT,
        tls_port=_TLS_PORT,
        private=" ".join((*SPECIAL4, *SPECIAL6)),
    )
    boxes = [
        _PER_BOX.format(
            n=link.number,
            address4=link.address4,
            address6=link.address6,
            names=" ".join(map(_expression, wanted.names)) or _NOTHING,
        )
        for link, wanted in rules.items()
    ]
    splices = [f"ssl_bump splice box{link.number} names{link.number}" for link in rules]
    ends = ["http_access deny all", "ssl_bump peek step1", *splices, "ssl_bump terminate all", ""]
    return base + "".join(boxes) + "\n".join(ends)


def _expression(name: str) -> str:
    """The anchored expression for one allowed name."""
    literal = re.escape(name.removeprefix("*"))
    # A name may end in the root's dot (RFC 1034 §3.1); regular expressions here are POSIX ones.
    return f"{'' if name.startswith('*') else '^'}{literal}[.]?$"
