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

from outgate.agent.serving import bind_unix
from outgate.api.listener import REQUESTS_MAX
from outgate.api.privileges import Identity
from outgate.api.serve import HostToken, ServeConfig, Serving, run_api
from outgate.client.agent_gateway import AgentHttpGateway
from outgate.dataplane.privileges import die_with_parent
from outgate.errors import HostNotCapableError, OutgateError, SettingError
from outgate.logs import configure_logs
from outgate.server.children import EXIT_HOPELESS
from outgate.server.context import api_settings, check_names
from outgate.server.identity import find_api_identity
from outgate.server.places import (
    ensure_api_directory,
    ensure_directories,
    ensure_host_token,
    make_first_key,
    read_api_key,
)
from outgate.settings import Settings, SocketAddress, load_settings, variable_of

HOST_NAME = "local"
"""The host whose agent shares this installation's state directory."""


def serve_config(settings: Settings) -> ServeConfig:
    """What the api is given. Raises :class:`SettingError` and OSError."""
    token = ensure_host_token(settings)
    chosen = settings.api_key.get_secret_value() if settings.api_key is not None else read_api_key(settings)
    return ServeConfig(
        database_url=settings.store_url,
        settings=api_settings(settings),
        gateway=AgentHttpGateway(token),
        first_key=chosen,
        host=HostToken(HOST_NAME, token),
        identity=find_api_identity(settings) if os.geteuid() == 0 else None,
    )


def bind_public(address: SocketAddress) -> socket.socket:
    """The listening socket of the public interface. Raises :class:`SettingError` when it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        raise SettingError(f"{variable_of('listen')} is {address}, which cannot be had: {error.strerror}.") from error
    bound.listen(REQUESTS_MAX)
    return bound


def run_api_alone(settings: Settings) -> None:
    """``outgate api``: bind and serve until SIGTERM. Prints where it listens.

    Raises what :func:`outgate.api.serve.run_api` raises.
    """
    configure_logs(settings.log_level, settings.log_format, process="api")
    check_names(settings)
    ensure_directories(settings)
    key = make_first_key(settings)
    is_root = os.geteuid() == 0
    ensure_api_directory(settings, find_api_identity(settings) if is_root else Identity(os.getuid(), os.getgid()))
    with bind_public(settings.listen) as public, bind_unix(settings.api_socket, mode=0o600) as internal:

        def announce(_serving: Serving) -> None:
            if key is not None and settings.api_key is None:
                sys.stdout.write(f"outgate api key: {key}\n")
            sys.stdout.write(f"outgate api listens on http://{settings.listen}\n")
            sys.stdout.flush()

        run_api(serve_config(settings), [public], [internal], announce)


def main(arguments: Sequence[str] | None = None) -> int:
    """The child of ``outgate serve``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="outgate-api", description="Outgate's api; started by outgate serve.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--public-fd", type=int, required=True)
    parser.add_argument("--internal-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        die_with_parent(options.parent)
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format, process="api")
        with socket.socket(fileno=options.public_fd) as public, socket.socket(fileno=options.internal_fd) as internal:
            run_api(serve_config(settings), [public], [internal], lambda _serving: None)
    except OutgateError as error:
        sys.stderr.write(json.dumps({"process": "api", "level": "error", "event": "not_started", "why": error.message}))
        sys.stderr.write("\n")
        return EXIT_HOPELESS if isinstance(error, (SettingError, HostNotCapableError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
