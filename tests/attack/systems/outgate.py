"""Outgate itself: ``outgate serve`` as a user starts it, driven by the official client."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.network_policy import NetworkPolicy

from attack.scene import Ability, Box, BrokenAttackError, Rules, Running, Who
from attack.world import populate
from outgate.cli.demo.internet import Internet
from support.stage import Stage, open_stage

NAME = "outgate"
ABILITIES = frozenset(Ability) - {Ability.RAW_SOCKETS}
IN_BOX = Path(__file__).parents[1] / "in_box"


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


@dataclass(slots=True)
class OutgateRunning:
    """See :class:`attack.scene.Running`."""

    stage: Stage
    _shared: dict[tuple[Rules, Who], Box] = field(default_factory=dict)

    def box(self, rules: Rules, who: Who, *, fresh: bool = False, raw_sockets: bool = False) -> Box:
        """A devbox under a policy of its own."""
        if raw_sockets:
            raise BrokenAttackError("A devbox never has raw sockets; see forged.py for how they are tried.")
        if fresh:
            return self._made(rules, who)
        if (rules, who) not in self._shared:
            self._shared[rules, who] = self._made(rules, who)
        return self._shared[rules, who]

    def restart(self) -> None:
        """As after a crash of the whole server."""
        self.stage.daemon.kill()
        self.stage.daemon.start()

    def _made(self, rules: Rules, who: Who) -> Box:
        policy = self.stage.policy(**_egress(rules))
        devbox = self.stage.devbox(policy, as_root=who is Who.ROOT)
        for program in sorted(IN_BOX.glob("*.py")):
            _run(devbox, f"echo {_packed(program.read_bytes())} | base64 -d > /tmp/{program.name}", seconds_max=30)
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


def _egress(rules: Rules) -> dict[str, Any]:
    return {
        "allow_all": rules.everything,
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
