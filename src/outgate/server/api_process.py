"""The api as a process: ``python -m outgate.server.api_process`` below ``outgate serve``, or ``outgate api`` alone.

Below ``serve`` its sockets are bound by the supervisor and stay open when this process dies: clients wait
instead of being refused.
"""

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace

from outgate.agent.serving import bind_unix
from outgate.api.serve import HostToken, ResourcePlaces, ServeConfig, Serving, run_api
from outgate.api.ssh_server import SshPlaces
from outgate.api.terminal_serving import TerminalServing
from outgate.client.agent_gateway import AgentHttpGateway
from outgate.client.terminals import AgentTerminals
from outgate.errors import HostNotCapableError, OutgateError, SettingError
from outgate.logs import configure_logs
from outgate.privileges import Identity, die_with_parent
from outgate.server.certificates import TlsNames
from outgate.server.children import EXIT_HOPELESS
from outgate.server.context import api_settings, check_names, find_tunnel_domain, reachable
from outgate.server.identity import find_api_identity
from outgate.server.notify import take_service_manager
from outgate.server.places import (
    ensure_api_directory,
    ensure_directories,
    ensure_host_token,
    make_first_key,
    read_api_key,
)
from outgate.server.sockets import bind_public, bind_ssh
from outgate.settings import Settings, SocketAddress, load_settings

HOST_NAME = "local"
"""The host whose agent shares this installation's state directory."""


def serve_config(settings: Settings, ssh: socket.socket | None = None) -> ServeConfig:
    """What the api is given. ``ssh`` is where its SSH server listens. Raises :class:`SettingError` and OSError."""
    token = ensure_host_token(settings)
    chosen = settings.api_key.get_secret_value() if settings.api_key is not None else read_api_key(settings)
    return ServeConfig(
        database_url=settings.store_url,
        settings=replace(api_settings(settings), ssh_host=find_ssh_host(settings, ssh)),
        gateway=AgentHttpGateway(token),
        resources=ResourcePlaces(
            key_file=settings.secret_key_file or settings.api_dir / "secret-key",
            objects_dir=settings.objects_dir or settings.api_dir / "objects",
            is_key_given=settings.secret_key_file is not None,
        ),
        first_key=chosen,
        host=HostToken(HOST_NAME, token),
        identity=find_api_identity(settings) if os.geteuid() == 0 else None,
        otel_endpoint=settings.otel_endpoint,
    )


def terminal_serving(settings: Settings, ssh: socket.socket | None, pty: socket.socket | None) -> TerminalServing:
    """What the api is given for terminals. Raises OSError."""
    places = SshPlaces(settings.ssh_host_key_file, settings.dial_socket)
    return TerminalServing(AgentTerminals(ensure_host_token(settings)), places, ssh, pty)


def find_ssh_host(settings: Settings, ssh: socket.socket | None) -> str | None:
    """What keys are told to be for: clients that go by TLS want a name, and those that do not an address."""
    if ssh is None or settings.ssh_host is not None:
        return None if ssh is None else settings.ssh_host
    domain = find_tunnel_domain(settings)
    host, port = ssh.getsockname()[:2]
    return str(reachable(SocketAddress(host, port))) if domain is None else TlsNames(domain).ssh


def run_api_alone(settings: Settings) -> None:
    """``outgate api``: bind and serve until SIGTERM. Prints where it listens.

    Raises what :func:`outgate.api.serve.run_api` raises.
    """
    manager = take_service_manager()
    configure_logs(settings.log_level, settings.log_format, process="api")
    check_names(settings)
    ensure_directories(settings)
    key = make_first_key(settings)
    is_root = os.geteuid() == 0
    ensure_api_directory(settings, find_api_identity(settings) if is_root else Identity(os.getuid(), os.getgid()))
    with (
        bind_public(settings.listen) as public,
        bind_unix(settings.api_socket) as internal,
        bind_ssh(settings) or nullcontext() as ssh,
    ):

        def announce(_serving: Serving) -> None:
            if key is not None and settings.api_key is None:
                sys.stdout.write(f"outgate api key: {key}\n")
            sys.stdout.write(f"outgate api listens on http://{settings.listen}\n")
            sys.stdout.flush()
            manager.ready(f"the API listens on http://{settings.listen}")

        terminals = terminal_serving(settings, ssh, None)
        run_api(serve_config(settings, ssh), [public], [internal], announce, terminals=terminals)


def main(arguments: Sequence[str] | None = None) -> int:
    """The child of ``outgate serve``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="outgate-api", description="Outgate's api; started by outgate serve.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--public-fd", type=int, required=True)
    parser.add_argument("--internal-fd", type=int, required=True)
    for optional in ("--ssh-fd", "--front-fd", "--pty-fd"):
        parser.add_argument(optional, type=int)
    options = parser.parse_args(arguments)
    try:
        die_with_parent(options.parent)
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format, process="api")
        with ExitStack() as bound:
            public = bound.enter_context(socket.socket(fileno=options.public_fd))
            internal = bound.enter_context(socket.socket(fileno=options.internal_fd))
            front, ssh, pty = (
                None if number is None else bound.enter_context(socket.socket(fileno=number))
                for number in (options.front_fd, options.ssh_fd, options.pty_fd)
            )
            run_api(
                serve_config(settings, ssh),
                [public],
                [internal],
                lambda _serving: None,
                front=front,
                terminals=terminal_serving(settings, ssh, pty),
            )
    except OutgateError as error:
        sys.stderr.write(json.dumps({"process": "api", "level": "error", "event": "not_started", "why": error.message}))
        sys.stderr.write("\n")
        return EXIT_HOPELESS if isinstance(error, (SettingError, HostNotCapableError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
