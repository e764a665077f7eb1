"""``outgate serve | api | agent | teardown``: the server's composition roots, started from the command line."""

from typing import Annotated

import typer

from outgate.cli.connection import StateDir
from outgate.cli.output import print_note
from outgate.server.agent_process import run_agent_alone
from outgate.server.api_process import run_api_alone
from outgate.server.serve import run_server
from outgate.server.teardown import run_teardown
from outgate.settings import load_settings

Listen = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", envvar="OUTGATE_LISTEN", help="[default: 127.0.0.1:8080]"),
]


def serve(
    *,
    listen: Listen = None,
    state_dir: StateDir = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Remove every devbox when it stops.")] = False,
) -> None:
    """Serve the API and enforce policies on this host. As root. Devboxes outlive it, filtered."""
    run_server(load_settings(listen=listen, state_dir=state_dir), is_ephemeral=ephemeral)


def api(*, listen: Listen = None, state_dir: StateDir = None) -> None:
    """Serve the API alone; hosts run agents. Needs OUTGATE_DATABASE_URL where there are several of either."""
    run_api_alone(load_settings(listen=listen, state_dir=state_dir))


def agent(*, state_dir: StateDir = None) -> None:
    """Enforce policies on this host for an api that runs apart. As root."""
    run_agent_alone(load_settings(state_dir=state_dir))


def teardown(*, state_dir: StateDir = None) -> None:
    """Remove every devbox, namespace and rule of this installation from the host. Policies stay in the store."""
    count = run_teardown(load_settings(state_dir=state_dir))
    print_note(f"removed {count} devbox{'' if count == 1 else 'es'} and all that held them")
