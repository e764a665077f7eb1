"""The api with its SSH and PTY servers on real sockets, and the agent's terminals behind it."""

import os
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from outgate.agent.running_terminals import TerminalRuntime
from outgate.agent.serving import bind_unix
from outgate.agent.terminals import Terminals
from outgate.api.ssh_server import SshPlaces
from outgate.api.terminal_serving import TerminalServing, serve_terminals
from outgate.client.terminals import SOCKET_NAME, AgentTerminals
from outgate.client.transport import unix_url
from outgate.control.configuration import ApiSettings
from support.api_server import HOST_TOKEN, ApiServer, listen_tcp
from support.local_terminals import LocalDials
from support.ssh_client import SshKey


@dataclass
class TerminalWorld:
    """A server, an account and its devboxes."""

    server: ApiServer
    directory: Path
    pty_url: str
    api_key: str
    dials: LocalDials
    _keys: int = field(default=0)

    def devbox(self, **parameters: Any) -> str:
        """The id of a devbox that runs, as far as the api knows."""
        with self.server.client(self.api_key) as client:
            made = client.post("/v1/devboxes", json=parameters)
            assert made.status_code == 200, made.text
            devbox_id: str = made.json()["id"]
            waited = client.post(f"/v1/devboxes/{devbox_id}/wait_for_status", json={"statuses": ["running"]})
            assert waited.status_code == 200, waited.text
            return devbox_id

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with self.server.client(self.api_key) as client:
            return client.post(path, json=body or {})

    def ssh_key(self, devbox_id: str) -> SshKey:
        answer = self.post(f"/v1/devboxes/{devbox_id}/create_ssh_key")
        assert answer.status_code == 200, answer.text
        made = answer.json()
        host, _, port = made["url"].rpartition(":")
        self._keys += 1
        file = self.directory / f"key-{self._keys}"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, made["ssh_private_key"].encode())
        os.close(descriptor)
        return SshKey(made["id"], made["ssh_user"], host, int(port), file)

    def pty_tunnel(self, devbox_id: str) -> dict[str, str]:
        """Headers as a client of the tunnel sends them."""
        answer = self.post(f"/v1/devboxes/{devbox_id}/create_pty_tunnel")
        assert answer.status_code == 200, answer.text
        made = answer.json()
        return {
            "host": f"1-{made['tunnel_key']}.tunnel.outgate.test",
            "x-runloop-tunnel-authorization": f"Bearer {made['auth_token']}",
        }


@contextmanager
def open_terminal_world(directory: Path, runtime: TerminalRuntime) -> Iterator[TerminalWorld]:
    """A world whose terminals are those of ``runtime``."""
    ssh, pty = listen_tcp(), listen_tcp()
    settings = ApiSettings(
        ssh_host=f"127.0.0.1:{ssh.getsockname()[1]}",
        webhook_networks=(ip_network("127.0.0.0/8"),),
        webhook_http_hosts=(ip_address("127.0.0.1"),),
    )
    server = ApiServer(directory, settings)
    server.agent.url = unix_url(directory / "agent.sock")
    asked = bind_unix(directory / SOCKET_NAME, kind=socket.SOCK_SEQPACKET)
    dialled = bind_unix(directory / "dial.sock", kind=socket.SOCK_SEQPACKET)
    dialled.setblocking(False)
    dials = LocalDials()
    serving = TerminalServing(
        AgentTerminals(HOST_TOKEN), SshPlaces(directory / "host-key", directory / "dial.sock"), ssh, pty
    )

    def besides() -> tuple[Coroutine[Any, Any, None], ...]:
        agent = Terminals(runtime, HOST_TOKEN, (os.geteuid(),))
        return serve_terminals(server.services, serving), agent.serve(asked), dials.serve(dialled)

    server.besides = besides
    with ssh, pty, asked, dialled, server:
        yield TerminalWorld(
            server,
            directory,
            f"http://127.0.0.1:{pty.getsockname()[1]}",
            server.new_account("terminals").api_key,
            dials,
        )
