"""The sockets that the supervisor holds open for its children.

Imports nothing of what the children are made of: the supervisor would take seconds more to start.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from outgate.agent.serving import bind_unix
from outgate.errors import SettingError
from outgate.server.identity import find_front_identity, find_gate_identity
from outgate.settings import Settings, SocketAddress, SshListen, variable_of

SSH_PORT: Final = 2222
_BACKLOG: Final = 4096
"""Clients that wait to be accepted while the api starts anew. The kernel's somaxconn may allow fewer."""


@dataclass(frozen=True, slots=True)
class FrontDoors:
    """The front's listeners, and those where the api answers it: about tunnels, and what is for terminals."""

    inside: socket.socket
    https: socket.socket
    http: socket.socket | None
    api: socket.socket
    pty: socket.socket

    def arguments(self, ssh: socket.socket | None) -> tuple[str, ...]:
        """The front's own arguments. ``ssh`` is where the SSH server listens."""
        named = {"--inside-fd": self.inside, "--https-fd": self.https, "--http-fd": self.http}
        pairs = [(name, str(bound.fileno())) for name, bound in named.items() if bound is not None]
        if ssh is not None:
            host, port = ssh.getsockname()[:2]
            pairs += [("--ssh-host", host), ("--ssh-port", str(port))]
        return tuple(word for pair in pairs for word in pair)

    def descriptors(self) -> tuple[int, ...]:
        """What it inherits."""
        return tuple(bound.fileno() for bound in (self.inside, self.https, self.http) if bound is not None)


@dataclass(frozen=True, slots=True)
class SupervisedSockets:
    """All of them. ``front`` is None where tunnels are off."""

    public: socket.socket
    internal: socket.socket
    ssh: socket.socket | None
    front: FrontDoors | None

    def api_arguments(self) -> tuple[str, ...]:
        """The api's own arguments."""
        return tuple(word for name, bound in self._of_api() for word in (name, str(bound.fileno())))

    def api_descriptors(self) -> tuple[int, ...]:
        """What it inherits."""
        return tuple(bound.fileno() for _, bound in self._of_api())

    def _of_api(self) -> tuple[tuple[str, socket.socket], ...]:
        front = self.front
        named = {
            "--public-fd": self.public,
            "--internal-fd": self.internal,
            "--ssh-fd": self.ssh,
            "--front-fd": None if front is None else front.api,
            "--pty-fd": None if front is None else front.pty,
        }
        return tuple((name, bound) for name, bound in named.items() if bound is not None)


def bind_public(address: SocketAddress, *, field: str = "listen") -> socket.socket:
    """The listening socket that the setting ``field`` asks for. Raises :class:`SettingError` when it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        raise SettingError(f"{variable_of(field)} is {address}, which cannot be had: {error.strerror}.") from error
    bound.listen(_BACKLOG)
    return bound


def bind_ssh(settings: Settings) -> socket.socket | None:
    """The SSH server's listening socket; None where it is off. Raises :class:`SettingError` when it cannot be had."""
    wanted = settings.ssh_listen
    if wanted is SshListen.OFF:
        return None
    if isinstance(wanted, SocketAddress):
        return bind_public(wanted, field="ssh_listen")
    try:
        return bind_public(SocketAddress(settings.listen.host, SSH_PORT), field="ssh_listen")
    except SettingError:
        # Another installation's, perhaps; where this one listens is said with each key that it makes.
        return bind_public(SocketAddress(settings.listen.host, 0), field="ssh_listen")


@contextmanager
def bind_sockets(settings: Settings) -> Iterator[SupervisedSockets]:
    """Every socket of the installation, for the length of the block. Raises SettingError and OSError."""
    with ExitStack() as stack:
        public = stack.enter_context(bind_public(settings.listen))
        internal = stack.enter_context(bind_unix(settings.api_socket))
        ssh = bind_ssh(settings)
        if ssh is not None:
            stack.enter_context(ssh)
        yield SupervisedSockets(public, internal, ssh, _bind_front(settings, stack))


def _bind_front(settings: Settings, stack: ExitStack) -> FrontDoors | None:
    if settings.tunnel_domain is None:
        return None
    http = settings.tunnel_http_listen
    front = find_front_identity(settings).uid
    return FrontDoors(
        # Nobody but the gate may say who a devbox is.
        inside=stack.enter_context(bind_unix(settings.inside_socket, owner=find_gate_identity(settings).uid)),
        https=stack.enter_context(bind_public(settings.tls_listen, field="tunnel_listen")),
        http=None if http is None else stack.enter_context(bind_public(http, field="tunnel_http_listen")),
        api=stack.enter_context(bind_unix(settings.front_api_socket, owner=front)),
        pty=stack.enter_context(bind_unix(settings.pty_socket, owner=front)),
    )
