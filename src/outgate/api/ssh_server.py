"""The SSH server: a key opens one devbox, and what it runs there runs as the devbox's user.

It is part of the api process, which has no privileges. Neither file nor program of this host is within its reach;
programs are started by the agent, in the devbox.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncssh
import structlog

from outgate.api.ssh_flow import WINDOW_BYTES, ChannelNeeds, Works
from outgate.api.ssh_forward import Forward, open_forward
from outgate.api.ssh_program import SshProgram
from outgate.control.errors import StoppingError
from outgate.control.services import Services
from outgate.control.ssh_keys import find_ssh_place
from outgate.control.terminal_access import TerminalActivity, TerminalPlace, find_running
from outgate.control.terminal_gateway import TerminalGateway
from outgate.control.wakeups import Subject, Topic
from outgate.core.clients import client_of
from outgate.errors import OutgateError

CONNECTIONS_MAX: Final = 1000
STRANGERS_MAX: Final = 100
"""Connections that have not shown a key yet, as sshd's MaxStartups."""
STRANGERS_PER_CLIENT_MAX: Final = 16
"""Of one client's address, so that nobody takes all of the places there are for strangers."""
LOGIN_S_MAX: Final = 30
KEYS_TRIED_MAX: Final = 12
"""Each key of a client's agent is tried, and the right one twice."""
PROGRAMS_MAX: Final = 16
FORWARDS_MAX: Final = 128
"""Of one connection: a browser opens some dozens."""
_ALIVE_EVERY_S: Final = 30
_ALIVE_MISSES_MAX: Final = 3
_LOOK_EVERY_S: Final = 10.0
"""How soon another api process's word that a devbox was ended is seen; its programs end at once by themselves."""
_KEY_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class SshPlaces:
    """``host_key``: the file of the server's own key, made when it is missing. ``dial_service``: the agent's."""

    host_key: Path
    dial_service: Path


@dataclass(slots=True)
class SshServer:
    """All SSH connections of one api process. Belongs to the event loop's thread."""

    services: Services
    terminals: TerminalGateway
    activity: TerminalActivity
    places: SshPlaces
    connections: set["_Connection"] = field(default_factory=set)
    works: Works = field(default_factory=Works)

    async def serve(self, bound: socket.socket) -> None:
        """Serve ``bound`` (and listening) until cancelled. Raises OSError when there can be no host key."""
        asyncssh.set_log_level("ERROR")  # it would log commands
        acceptor = await asyncssh.create_server(
            lambda: _Connection(self),
            sock=bound.dup(),
            server_host_keys=[load_host_key(self.places.host_key)],
            server_version="Outgate",
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            x11_forwarding=False,
            compression_algs=["none"],
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            rdns_lookup=False,
            login_timeout=LOGIN_S_MAX,
            keepalive_interval=_ALIVE_EVERY_S,
            keepalive_count_max=_ALIVE_MISSES_MAX,
            window=WINDOW_BYTES,
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            acceptor.close()
            for connection in tuple(self.connections):
                connection.end("The server is being stopped.")
            await self.works.end()
            await acceptor.wait_closed()

    def has_room(self, client: str) -> bool:
        """Whether ``client`` may connect once more."""
        strangers = [connection for connection in self.connections if connection.place is None]
        own = sum(1 for connection in strangers if connection.client == client)
        is_free = len(self.connections) < CONNECTIONS_MAX and len(strangers) < STRANGERS_MAX
        return is_free and own < STRANGERS_PER_CLIENT_MAX


class _Connection(asyncssh.SSHServer):
    """One client. See asyncssh.SSHServer for when each method is called."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._peer: asyncssh.SSHServerConnection | None = None
        self._keys_tried = 0
        self._open: dict[type, int] = {SshProgram: 0, Forward: 0}
        self._watching: asyncio.Future[None] | None = None
        self._log = structlog.get_logger("ssh")
        self.place: TerminalPlace | None = None
        self.client = ""
        self._shown: TerminalPlace | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """A client connected."""
        server = self._server
        self._peer = conn
        self.client = client_of((conn.get_extra_info("peername") or ("",))[0])
        if not server.has_room(self.client):
            self._log.warning("too_many_connections", open=len(server.connections), client=self.client)
            conn.abort()
            return
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._server.connections.discard(self)
        if self._watching is not None:
            self._watching.cancel()

    def begin_auth(self, username: str) -> bool:
        """Everybody has to show a key."""
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        """And nothing else would do."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the key opens a devbox that runs, for that user of it."""
        self._keys_tried += 1
        if self._keys_tried > KEYS_TRIED_MAX:
            self.end("Too many keys were tried.")
            return False
        try:
            place = await find_ssh_place(self._server.services, key.public_data)
        except OutgateError as error:
            self._log.info("login_refused", reason=error.message)
            return False
        if place is None or place.username != username:
            return False
        self._shown = place
        return True

    def auth_completed(self) -> None:
        """The key was proved."""
        self.place = self._shown
        if self.place is None:
            self.end("No key was shown.")
            return
        self._log.info("login", devbox_id=self.place.devbox_id, account_id=self.place.account_id)
        self._server.activity.note(self.place.devbox_id)
        self._watching = asyncio.ensure_future(self._watch(self.place))

    def session_requested(self) -> SshProgram:
        """A program is wanted."""
        return SshProgram(self._admit(SshProgram, PROGRAMS_MAX), self._server.terminals)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Coroutine[Any, Any, Forward]:
        """A connection is wanted (``-L``)."""
        del orig_host, orig_port
        return self._forward(self._admit(Forward, FORWARDS_MAX), dest_host, dest_port)

    async def _forward(self, needs: ChannelNeeds, host: str, port: int) -> Forward:
        try:
            return await open_forward(self._server.places.dial_service, needs, host, port)
        except BaseException:
            needs.on_lost()
            raise

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        """Listening out here for the devbox (``-R``) is refused: it would be a way out that no policy sees."""
        del listen_host, listen_port
        if self._peer is not None:
            self._peer.send_debug("Outgate does not forward ports of yours into a devbox (-R).", always_display=True)
        return False

    def end(self, reason: str) -> None:
        """Disconnect the client."""
        if self._peer is not None:
            self._peer.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    async def _watch(self, place: TerminalPlace) -> None:
        """Disconnect when the devbox does not run any more, or runs anew."""
        services = self._server.services
        try:
            with services.wakeups.watch(Topic(Subject.DEVBOX, place.devbox_id)) as watch:
                while (await find_running(services, place.account_id, place.devbox_id)).boot == place.boot:
                    await watch.wait(_LOOK_EVERY_S)
            self.end("The devbox was started anew.")
        except StoppingError:
            self.end("The server is being stopped.")
        except OutgateError as error:
            self.end(error.message)

    def _admit(self, kind: type, most: int) -> ChannelNeeds:
        """Count one more channel of that kind. Raises asyncssh.ChannelOpenError when there are too many."""
        if self.place is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "Log in first")
        if self._open[kind] >= most:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, f"This connection has {most} open already")
        self._open[kind] += 1

        def leave() -> None:
            self._open[kind] -= 1

        return ChannelNeeds(self.place, self._server.activity, self._server.works, leave)


def load_host_key(path: Path) -> asyncssh.SSHKey:
    """The server's own key; made, for the process's user alone, when there is none. Raises OSError."""
    with suppress(FileNotFoundError):
        return asyncssh.import_private_key(path.read_bytes())
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _KEY_MODE)
    with os.fdopen(descriptor, "wb") as file:
        key = asyncssh.generate_private_key("ssh-ed25519")
        file.write(key.export_private_key())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)  # whole or not at all
    return key
