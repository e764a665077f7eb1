"""``outgate api``: the api process alone."""

from outgate.cli.connection import Listen, StateDir
from outgate.server.api_process import run_api_alone
from outgate.settings import load_settings


def api(*, listen: Listen = None, state_dir: StateDir = None) -> None:
    """Serve the API alone, for the agent of this host that runs apart."""
    run_api_alone(load_settings(listen=listen, state_dir=state_dir))
