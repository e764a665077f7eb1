"""``outgate teardown``: as if the server had never been on this host, but for its state."""

from outgate.cli.connection import StateDir
from outgate.cli.output import print_note
from outgate.server.teardown import run_teardown
from outgate.settings import load_settings


def teardown(*, state_dir: StateDir = None) -> None:
    """Remove every devbox, namespace and rule of this installation from the host. Policies stay in the store."""
    count = run_teardown(load_settings(state_dir=state_dir))
    print_note(f"removed {count} devbox{'' if count == 1 else 'es'} and all that held them")
