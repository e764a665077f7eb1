"""The tunnel front as a process: ``python -m outgate.server.front_process`` below ``outgate serve``.

It starts as root to read the certificate's key, and becomes its own unprivileged user before it serves. Its
sockets are the supervisor's and stay open when it dies: clients wait instead of being refused.
"""

import argparse
import asyncio
import encodings.idna  # noqa: F401 - looked up by name when it is first needed, which is too late to read files
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import structlog
import uvloop

from outgate.client.transport import unix_url
from outgate.errors import HostNotCapableError, OutgateError, SettingError
from outgate.front.front import FrontConfig, run_front
from outgate.front.listeners import FrontSockets
from outgate.logs import configure_logs
from outgate.privileges import die_with_parent, drop_privileges, raise_descriptor_limit
from outgate.server.certificates import load_tls
from outgate.server.children import EXIT_HOPELESS
from outgate.server.context import find_tunnel_domain, reachable
from outgate.server.identity import find_front_identity, find_gate_identity
from outgate.settings import Settings, SocketAddress, load_settings, variable_of


def front_config(settings: Settings, sockets: FrontSockets, ssh: SocketAddress | None) -> FrontConfig:
    """What the front is given. ``ssh`` is where the SSH server listens. Raises :class:`SettingError` and OSError."""
    domain = find_tunnel_domain(settings)
    if domain is None:
        raise SettingError(f"There are no tunnels without {variable_of('tunnel_domain')}.")
    api = reachable(settings.listen)
    return FrontConfig(
        domain=domain,
        tls=load_tls(settings, domain),
        sockets=sockets,
        api=(api.host, api.port),
        api_socket=unix_url(settings.front_api_socket),
        dial_socket=settings.dial_socket,
        pty_socket=settings.pty_socket,
        ssh=None if ssh is None else (reachable(ssh).host, ssh.port),
        auth_failures_max=settings.auth_failures_max,
    )


async def _work(config: FrontConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working, stopping = asyncio.ensure_future(run_front(config)), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()  # raises what ended it
    for task in (working, stopping):
        task.cancel()
    await asyncio.gather(working, stopping, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The child of ``outgate serve``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="outgate-front", description="Outgate's tunnels; started by outgate serve.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--inside-fd", type=int, required=True)
    parser.add_argument("--https-fd", type=int, required=True)
    parser.add_argument("--http-fd", type=int)
    parser.add_argument("--ssh-host")
    parser.add_argument("--ssh-port", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        die_with_parent(options.parent)
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format, process="front")
        with ExitStack() as bound:
            inside = bound.enter_context(socket.socket(fileno=options.inside_fd))
            https = bound.enter_context(socket.socket(fileno=options.https_fd))
            has_http = options.http_fd is not None
            http = bound.enter_context(socket.socket(fileno=options.http_fd)) if has_http else None
            ssh = None if options.ssh_host is None else SocketAddress(options.ssh_host, options.ssh_port)
            sockets = FrontSockets(inside, (find_gate_identity(settings).uid,), https, http)
            config = front_config(settings, sockets, ssh)
            raise_descriptor_limit()
            drop_privileges(find_front_identity(settings))
            uvloop.run(_work(config))
    except OutgateError as error:
        structlog.get_logger("front").error("not_started", why=error.message)
        return EXIT_HOPELESS if isinstance(error, (SettingError, HostNotCapableError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
