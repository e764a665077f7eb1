"""``outgate serve``: checks the host, then keeps one api and one agent running.

The supervisor itself does nothing that could fail while it runs: it holds the listening sockets, so that a
client waits and is not refused while the api is started again, and waits for children. Whatever ends it
(SIGKILL too) ends the children, and leaves devboxes, their rules and kernel flows as they are.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

import httpx
import structlog

from outgate import clock
from outgate.dataplane.probe import probe_host, require_capable_host
from outgate.errors import OutgateError
from outgate.logs import configure_logs
from outgate.privileges import keep_held_capabilities
from outgate.runtime.engine import EngineKind, find_engine
from outgate.server.capabilities import SUPERVISOR_CAPABILITIES
from outgate.server.certificates import load_tls
from outgate.server.children import Child, ChildPlan
from outgate.server.context import check_names, find_resolvers, find_tunnel_domain, reachable
from outgate.server.identity import find_api_identity, find_front_identity, find_gate_identity, require_root
from outgate.server.notify import ServiceManager, keep_alive, take_service_manager
from outgate.server.orphans import reap_orphans
from outgate.server.places import ensure_api_directory, ensure_directories, ensure_host_token, locked, make_first_key
from outgate.server.sockets import SupervisedSockets, bind_sockets
from outgate.server.teardown import teardown_locked
from outgate.server.wellbeing import are_all_answering
from outgate.settings import Settings, variable_of

_READY_POLL_S: Final = 0.05
_FIRST_START_WAIT_S: Final = 60.0
"""After this a start that has not succeeded is called failed, with the reason; migrations of a large store included."""
_START_FAILURES_MAX: Final = 3
_PROBLEM_LENGTH_MAX: Final = 500
_SECRET_VARIABLES: Final = tuple(map(variable_of, ("api_key", "database_url", "metrics_token")))


class NotReadyError(OutgateError):
    """The server did not come to enforce anything; the message has the last known reason."""

    code = "not_ready"


def run_server(settings: Settings, *, is_ephemeral: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; with ``is_ephemeral``, remove every devbox and rule then.

    Prints the first API key (at the first start) and one line when it serves and enforces. Raises
    :class:`OutgateError` for whatever keeps it from that: settings, the host, or children that do not start.
    """
    manager = take_service_manager()
    configure_logs(settings.log_level, settings.log_format, process="serve")
    check_host(settings)
    keep_held_capabilities(SUPERVISOR_CAPABILITIES)
    with locked(settings, "serve", "A server"):
        ensure_directories(settings)
        key = make_first_key(settings)
        ensure_api_directory(settings, find_api_identity(settings))
        ensure_host_token(settings)
        tunnel_domain = find_tunnel_domain(settings)
        if tunnel_domain is not None:
            load_tls(settings, tunnel_domain)  # made, or found wanting, before anything starts
        if key is not None and settings.api_key is None:
            _say(f"outgate api key: {key}")
        asyncio.run(_supervise(settings, manager))
        if is_ephemeral:
            teardown_locked(settings)


def check_host(settings: Settings) -> None:
    """Raise :class:`OutgateError` with the reason if this host or these settings cannot do."""
    require_root("outgate serve")
    check_names(settings)
    find_resolvers(settings)
    find_api_identity(settings)
    find_gate_identity(settings)
    if settings.tunnel_domain is not None:
        find_front_identity(settings)
    find_engine(EngineKind(settings.runtime.value), settings.run_dir)
    require_capable_host(probe_host())


async def _supervise(settings: Settings, manager: ServiceManager) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with bind_sockets(settings) as sockets:
        children = _plan_children(settings, sockets)
        reap_orphans(lambda pid: any(child.may_be(pid) for child in children))
        keeping = [asyncio.create_task(child.run()) for child in children]
        announcing = asyncio.create_task(_announce(settings, children, manager))
        stopping = asyncio.create_task(_wait(stop))
        watching = asyncio.create_task(keep_alive(manager, partial(are_all_answering, settings)))
        try:
            await _until_stopped(stopping, announcing, keeping)
        finally:
            manager.stopping()
            tasks = (announcing, stopping, watching, *keeping)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _plan_children(settings: Settings, sockets: SupervisedSockets) -> tuple[Child, ...]:
    environment = _child_environment(settings)
    # Agent and front have no use for the keys to the store.
    bare = {name: value for name, value in environment.items() if name not in _SECRET_VARIABLES}
    agent = ChildPlan(name="agent", module="outgate.server.agent_process", environment=bare)
    api = ChildPlan(
        name="api",
        module="outgate.server.api_process",
        arguments=sockets.api_arguments(),
        descriptors=sockets.api_descriptors(),
        environment=environment,
    )
    if sockets.front is None:
        return Child(agent), Child(api)
    front = ChildPlan(
        name="front",
        module="outgate.server.front_process",
        arguments=sockets.front.arguments(sockets.ssh),
        descriptors=sockets.front.descriptors(),
        environment=bare,
    )
    return Child(agent), Child(api), Child(front)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _until_stopped(
    stopping: asyncio.Task[None], announcing: asyncio.Task[None], keeping: Sequence[asyncio.Task[None]]
) -> None:
    """Wait for the stop. Raises :class:`NotReadyError`, or what a child's keeper raised."""
    await asyncio.wait({stopping, announcing, *keeping}, return_when=asyncio.FIRST_COMPLETED)
    if announcing.done() and not stopping.done():
        announcing.result()
        await asyncio.wait({stopping, *keeping}, return_when=asyncio.FIRST_COMPLETED)
    for task in keeping:
        if task.done():
            task.result()


async def _announce(settings: Settings, children: Sequence[Child], manager: ServiceManager) -> None:
    """Ask until the api answers that its host enforces, then say so, once. Raises :class:`NotReadyError`."""
    listen = settings.listen
    deadline_s = clock.monotonic_s() + _FIRST_START_WAIT_S
    async with httpx.AsyncClient(base_url=f"http://{reachable(listen)}", timeout=1.0, trust_env=False) as client:
        while (problem := await _ask(client)) is not None:
            broken = next((child.name for child in children if _is_broken(child)), None)
            if broken is not None:
                raise NotReadyError(f"The {broken} does not start; its log above says why.")
            if clock.monotonic_s() > deadline_s:
                raise NotReadyError(f"Nothing was enforced within {_FIRST_START_WAIT_S:g} s: {problem}")
            await asyncio.sleep(_READY_POLL_S)
    structlog.get_logger("supervisor").info("ready", listen=str(listen))
    _say(f"outgate ready on http://{listen}")
    manager.ready(f"enforcing; the API listens on http://{listen}")


def _is_broken(child: Child) -> bool:
    return child.is_hopeless or child.endings >= _START_FAILURES_MAX


async def _ask(client: httpx.AsyncClient) -> str | None:
    """Why the server is not ready; None when it is."""
    try:
        answer = await client.get("/readyz")
    except httpx.HTTPError as error:
        return f"the api does not answer ({type(error).__name__})."
    return None if answer.status_code == httpx.codes.OK else answer.text[:_PROBLEM_LENGTH_MAX]


def _child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with what options set on top of it."""
    changed = {
        variable_of("listen"): str(settings.listen),
        variable_of("state_dir"): str(settings.state_dir.absolute()),
    }
    return {**os.environ, **changed}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
