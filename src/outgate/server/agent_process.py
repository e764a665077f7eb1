"""The agent as a process: ``python -m outgate.server.agent_process`` below ``outgate serve``, or ``outgate agent``."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import structlog
import uvloop

from outgate.agent.agent import Agent, AgentNeeds
from outgate.agent.capacity import observe_capacity
from outgate.agent.dial_service import DialService, bind_dial_socket
from outgate.agent.gate_process import GateProcess
from outgate.agent.http import build_app
from outgate.agent.kernel_thread import KernelThread
from outgate.agent.record import RecordStore
from outgate.agent.running_terminals import TerminalRuntime
from outgate.agent.serving import bind_unix, serve_unix
from outgate.agent.terminals import Terminals
from outgate.client.host_api import HostApiClient
from outgate.client.transport import unix_url
from outgate.dataplane import netns
from outgate.dataplane.apply_steps import StepObserver, ignore_step
from outgate.dataplane.dns_gate import DeniedAnswer
from outgate.dataplane.flow_table import observe_flow_table
from outgate.dataplane.gate_config import GateConfig
from outgate.dataplane.gate_config import host_context as gate_context
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import HostNotCapableError, OutgateError, SettingError
from outgate.logs import configure_logs
from outgate.privileges import die_with_parent, keep_held_capabilities, raise_descriptor_limit
from outgate.server.capabilities import AGENT_CAPABILITIES
from outgate.server.children import EXIT_HOPELESS
from outgate.server.context import check_names, find_resolvers
from outgate.server.endpoint_changes import count_endpoint_changes
from outgate.server.host_network import RECORDS, open_driver
from outgate.server.identity import find_api_identity, find_front_identity, find_gate_identity, require_root
from outgate.server.notify import UNMANAGED, ServiceManager, keep_alive, take_service_manager
from outgate.server.places import ensure_directories, ensure_host_token, locked
from outgate.server.sandboxes import open_runtime
from outgate.server.wellbeing import is_agent_answering
from outgate.settings import Settings, load_settings


def gate_config(settings: Settings, layout: NetworkLayout) -> GateConfig:
    """What a gate is told at its start. Raises :class:`SettingError` when there is no resolver."""
    dns = (str(layout.gateway4), str(layout.gateway6)) if layout.has_ipv6 else (str(layout.gateway4),)
    gate = find_gate_identity(settings)
    return GateConfig(
        namespace=str(netns.namespace_path(layout.router_namespace)),
        dns_addresses=dns,
        resolvers=find_resolvers(settings),
        relay_port=layout.relay_port,
        flows_per_devbox=settings.flows_per_devbox,
        denied_answer=DeniedAnswer(settings.denied_answer.value),
        has_ipv6=layout.has_ipv6,
        devbox_networks=(str(layout.pool4), str(layout.pool6)),
        internal_zones=settings.internal_zones,
        address_bound=settings.address_bound,
        agent_gateway_hosts=settings.agent_gateway_hosts,
        mcp_gateway_hosts=settings.mcp_gateway_hosts,
        mirror_hosts=settings.mirror_hosts,
        tunnel_domain=settings.tunnel_domain,
        front_socket=None if settings.tunnel_domain is None else str(settings.inside_socket),
        user=(gate.uid, gate.gid),
    )


async def _work(settings: Settings, on_step: StepObserver, manager: ServiceManager) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    kernel, runtime = KernelThread(), open_runtime(settings)
    driver = await kernel.run(lambda: open_driver(settings, on_step))
    try:
        layout = await kernel.run(driver.ensure_router)
        await runtime.prepare()
        async with HostApiClient(unix_url(settings.api_socket), ensure_host_token(settings)) as api:
            needs = AgentNeeds(
                driver=driver,
                kernel=kernel,
                layout=layout,
                context=replace(
                    gate_context(gate_config(settings, layout)), endpoints_epoch=count_endpoint_changes(settings)
                ),
                make_gate=lambda events: GateProcess(lambda: gate_config(settings, layout), events),
                runtime=runtime,
                api=api,
                objects=api,
                logs=api,
                flows=api,
                measures=api,
                records=RecordStore(settings.agent_dir / RECORDS),
                url=unix_url(settings.agent_socket),
                capacity=observe_capacity(),
                identify_router=lambda: netns.namespace_identity(layout.router_namespace),
                observe_flow_table=lambda: observe_flow_table(layout.router_namespace),
                on_step=on_step,
            )
            await _serve(settings, needs, runtime, stop, manager)
    finally:
        await runtime.aclose()
        await kernel.run(driver.close)
        kernel.close()


async def _serve(
    settings: Settings, needs: AgentNeeds, runtime: TerminalRuntime, stop: asyncio.Event, manager: ServiceManager
) -> None:
    """Until ``stop``. Devboxes, rules and kernel flows stay; terminals end."""
    agent = Agent(needs)
    app = build_app(
        agent.executions,
        agent.status,
        ensure_host_token(settings),
        snapshots=agent.snapshots,
        files=agent.files,
    )
    api = find_api_identity(settings).uid
    terminals = Terminals(runtime, ensure_host_token(settings), (os.geteuid(), api))
    dials = DialService(needs.layout, agent.find_running_slot, _dialling_uids(settings))
    with (
        bind_unix(settings.agent_socket, owner=api) as bound,
        bind_dial_socket(settings.dial_socket) as dialled,
        bind_unix(settings.terminal_socket, owner=api, kind=socket.SOCK_SEQPACKET) as asked,
    ):
        working = [
            asyncio.ensure_future(agent.run()),
            asyncio.ensure_future(serve_unix(app, bound)),
            asyncio.ensure_future(dials.serve(dialled)),
            asyncio.ensure_future(terminals.serve(asked)),
            asyncio.ensure_future(keep_alive(manager, partial(is_agent_answering, settings))),
        ]
        # Closed until the api has said what is wanted, so that there is nothing to wait for.
        manager.ready("filtering; waits for the api's word")
        stopping = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        manager.stopping()
        for task in (*working, stopping):
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for task in done - {stopping}:
            task.result()  # raises what ended it


def _dialling_uids(settings: Settings) -> frozenset[int]:
    """Who may ask for connections into devboxes: the api (for SSH and terminals), and the tunnel front."""
    front = () if settings.tunnel_domain is None else (find_front_identity(settings).uid,)
    return frozenset({os.geteuid(), find_api_identity(settings).uid, *front})


def run_agent(settings: Settings, on_step: StepObserver = ignore_step, *, manager: ServiceManager = UNMANAGED) -> None:
    """Work until SIGTERM; ``on_step`` is told of each step. Raises :class:`OutgateError` if it cannot enforce."""
    require_root("The agent")
    check_names(settings)
    raise_descriptor_limit()
    keep_held_capabilities(AGENT_CAPABILITIES)
    ensure_directories(settings)
    with locked(settings, "agent", "An agent"):
        uvloop.run(_work(settings, on_step, manager))


def run_agent_alone(settings: Settings) -> None:
    """``outgate agent``: as below ``serve``, with its own log."""
    manager = take_service_manager()
    configure_logs(settings.log_level, settings.log_format, process="agent")
    run_agent(settings, manager=manager)


def main(arguments: Sequence[str] | None = None) -> int:
    """The child of ``outgate serve``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="outgate-agent", description="Outgate's agent; started by outgate serve.")
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        die_with_parent(options.parent)
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format, process="agent")
        run_agent(settings)
    except OutgateError as error:
        structlog.get_logger("agent").error("not_started", why=error.message)
        return EXIT_HOPELESS if isinstance(error, (SettingError, HostNotCapableError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
