"""The ways to terminals that one api process serves: SSH, and PTY sessions behind the tunnel front."""

import asyncio
import socket
from dataclasses import dataclass

from outgate.api.pty_server import PtyServer
from outgate.api.ssh_server import SshPlaces, SshServer
from outgate.control.services import Services
from outgate.control.terminal_access import TerminalActivity
from outgate.control.terminal_gateway import TerminalGateway


@dataclass(frozen=True, slots=True)
class TerminalServing:
    """Where terminals are (``gateway``), and the bound and listening sockets of those who want one, if any."""

    gateway: TerminalGateway
    places: SshPlaces
    ssh: socket.socket | None = None
    pty: socket.socket | None = None


async def serve_terminals(services: Services, serving: TerminalServing) -> None:
    """Serve until cancelled. Raises what ended one of the parts."""
    activity = TerminalActivity()
    async with asyncio.TaskGroup() as parts:
        parts.create_task(activity.run(services))
        if serving.ssh is not None:
            ssh = SshServer(services, serving.gateway, activity, serving.places)
            parts.create_task(ssh.serve(serving.ssh))
        if serving.pty is not None:
            parts.create_task(PtyServer(services, serving.gateway, activity).serve(serving.pty))
