"""``outgate serve``: the whole server on this host."""

from typing import Annotated

import typer

from outgate.cli.connection import Listen, StateDir
from outgate.server.serve import run_server
from outgate.settings import load_settings


def serve(
    *,
    listen: Listen = None,
    state_dir: StateDir = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Remove every devbox when it stops.")] = False,
) -> None:
    """Serve the API and enforce policies on this host. As root. Devboxes outlive it, filtered."""
    run_server(load_settings(listen=listen, state_dir=state_dir), is_ephemeral=ephemeral)
