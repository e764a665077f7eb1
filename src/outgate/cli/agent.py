"""``outgate agent``: a host's agent alone."""

from outgate.cli.connection import StateDir
from outgate.server.agent_process import run_agent_alone
from outgate.settings import load_settings


def agent(*, state_dir: StateDir = None) -> None:
    """Enforce policies on this host for an api that runs apart. As root."""
    run_agent_alone(load_settings(state_dir=state_dir))
