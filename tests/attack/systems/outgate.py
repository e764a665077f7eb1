"""Outgate itself: ``outgate serve`` as a user starts it, driven by the official client."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.network_policy import NetworkPolicy

from attack.scene import Ability, Box, BrokenAttackError, Rules, Running, Who
from attack.systems.namespace_box import EnteredBox
from attack.world import populate
from outgate import __version__
from outgate.cli.demo.internet import Internet
from support.stage import Stage, open_stage

NAME = "outgate"
ABILITIES = frozenset(Ability)
IN_BOX = Path(__file__).parents[1] / "in_box"
_FIRST = re.compile(r"^NSpid:.*\t1$", re.MULTILINE)


@contextmanager
def opened() -> Iterator[tuple[Running, Internet]]:
    """The system, on an internet of its own."""
    with open_stage() as stage:
        populate(stage.internet)
        running = OutgateRunning(stage)
        try:
            yield running, stage.internet
        finally:
            stage.clear()


def version() -> str:
    """What is tested."""
    return f"outgate {__version__}"


@dataclass(slots=True)
class OutgateRunning:
    """See :class:`attack.scene.Running`."""

    stage: Stage
    _shared: dict[tuple[Rules, Who], "OutgateBox"] = field(default_factory=dict)
    _raw: dict[str, "RawBox"] = field(default_factory=dict)
    """By the devbox's id."""

    def box(self, rules: Rules, who: Who, *, fresh: bool = False, raw_sockets: bool = False) -> Box:
        """A devbox under a policy of its own; one with raw sockets is entered from outside, because none has them."""
        made = self._made(rules, who) if fresh else self._shared.get((rules, who))
        if made is None:
            made = self._shared[rules, who] = self._made(rules, who)
        if not raw_sockets:
            return made
        if made.devbox.id not in self._raw:
            self._raw[made.devbox.id] = RawBox(holder=_process_in(made.devbox), who=who, raw_sockets=True, devbox=made)
        return self._raw[made.devbox.id]

    def restart(self) -> None:
        """As after a crash of the whole server."""
        self.stage.daemon.kill()
        self.stage.daemon.start()

    def _made(self, rules: Rules, who: Who) -> "OutgateBox":
        policy = self.stage.policy(**_egress(rules))
        devbox = self.stage.devbox(policy, as_root=who is Who.ROOT)
        uploads = [
            f"echo {_packed(program.read_bytes())} | base64 -d > /tmp/{program.name}"
            for program in sorted(IN_BOX.glob("*.py"))
        ]
        _run(devbox, " && ".join(uploads), seconds_max=30)
        return OutgateBox(devbox, policy)


@dataclass(frozen=True, slots=True)
class OutgateBox:
    """A devbox and its policy."""

    devbox: Devbox
    policy: NetworkPolicy

    def python(self, source: str, *, seconds_max: float) -> str:
        """See :class:`attack.scene.Box`."""
        command = f"echo {_packed(source.encode())} | base64 -d | PYTHONPATH=/tmp timeout {seconds_max:.0f} python3 -"
        return _run(self.devbox, command, seconds_max=seconds_max)

    def apply(self, rules: Rules) -> None:
        """One update of the policy; in force when this returns."""
        self.policy.update(**_egress(rules))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBox(EnteredBox):
    """A devbox whose namespaces a process of the host's enters with CAP_NET_RAW, past every lock of the runtime."""

    devbox: OutgateBox

    def apply(self, rules: Rules) -> None:
        """See :class:`OutgateBox`."""
        self.devbox.apply(rules)


def _process_in(devbox: Devbox) -> int:
    """The first process of its namespaces, in the host's numbers; it lives as long as they do."""
    namespace = _run(devbox, "readlink /proc/self/ns/net", seconds_max=30).strip()
    for process in Path("/proc").glob("[0-9]*"):
        # Any process may end while it is looked at.
        with suppress(OSError):
            if _FIRST.search((process / "status").read_text()) and str((process / "ns/net").readlink()) == namespace:
                return int(process.name)
    raise BrokenAttackError(f"No process of the devbox {devbox.id} was found.")


def _egress(rules: Rules) -> dict[str, Any]:
    return {
        "allow_all": rules.everything,
        # An extension, which the official client sends along.
        "extra_body": {"enforcement": "report_only" if rules.only_reports else "enforce"},
        "allowed_hostnames": list(rules.names),
        "allowed_cidrs": [
            {"cidr": rule.cidr}
            if rule.protocol is None and not rule.ports
            else {"cidr": rule.cidr, "ports": [_port(rule.protocol, port) for port in rule.ports]}
            for rule in rules.cidrs
        ],
    }


def _port(protocol: str | None, port: int) -> dict[str, Any]:
    return {"port": port} if protocol is None else {"port": port, "protocol": protocol}


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _run(devbox: Devbox, command: str, *, seconds_max: float) -> str:
    result = devbox.cmd.exec(command, timeout=seconds_max + 10)
    if result.exit_code != 0:
        raise BrokenAttackError(f"exit {result.exit_code}\n{result.stdout()}{result.stderr()}")
    return result.stdout()
