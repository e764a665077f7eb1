"""Processes of a gateway: started until they answer, killed without notice."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from attack.scene import Running
from attack.systems.gateway_rules import load
from attack.systems.namespace_box import COMMAND_S_MAX, Gateway, NamespaceSystem, opened_internet
from outgate import clock
from outgate.cli.demo.internet import Internet

_POLL_S = 0.02


class GatewayProcess(Gateway, Protocol):
    """A gateway that runs programs of its own."""

    def start(self) -> None:
        """Start those that serve all boxes."""
        ...

    def stop(self) -> None:
        """End all of them."""
        ...


@contextmanager
def opened_gateway(made: Callable[[str, Path], GatewayProcess]) -> Iterator[tuple[Running, Internet]]:
    """A system behind the gateway that is ``made`` of a resolver and a folder of its own, on an internet of its own."""
    with opened_internet() as internet, tempfile.TemporaryDirectory(prefix="outgate-attack-") as folder:
        load()
        gateway = made(internet.resolver, Path(folder))
        try:
            gateway.start()
            with NamespaceSystem(internet, gateway) as system:
                yield system, internet
        finally:
            gateway.stop()


def started(command: Sequence[str], *, address: str, port: int) -> subprocess.Popen[bytes]:
    """``command`` in the calling thread's namespace, once it takes connections on ``address``; dies with its parent.

    Raises RuntimeError when it ends or takes too long.
    """
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])
    deadline_s = clock.monotonic_s() + COMMAND_S_MAX
    while process.poll() is None and clock.monotonic_s() < deadline_s:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return process
    killed(process)
    raise RuntimeError(f"`{' '.join(command)}` did not start.")


def killed(process: subprocess.Popen[bytes]) -> None:
    """End it as a crash would."""
    process.kill()
    process.wait(timeout=COMMAND_S_MAX)
