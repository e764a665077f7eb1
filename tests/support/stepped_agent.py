"""The agent process, put together with an observer that ends it at a step which a test chooses.

``DIR/die-after`` holds the number of the step, counted from when the file is there; 0 lets it live. ``DIR/steps``
gets the names of the steps that were counted.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from outgate.dataplane.apply_steps import ApplyStep
from outgate.logs import configure_logs
from outgate.privileges import die_with_parent
from outgate.server.agent_process import run_agent
from outgate.settings import load_settings

ORDER, STEPS = "die-after", "steps"


class Executioner:
    """Counts steps while there is an order, and kills the process after the one that is named."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted = 0

    def __call__(self, step: ApplyStep) -> None:
        """A step is done."""
        try:
            order = int((self._folder / ORDER).read_text("ascii"))
        except (OSError, ValueError):  # none yet, or it is being written
            self._counted = 0
            return
        self._counted += 1
        with (self._folder / STEPS).open("a", encoding="ascii") as steps:
            steps.write(f"{step.name}\n")
        if self._counted == order:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """As the agent's own, with ``--orders`` on top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--orders", type=Path, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent)
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format, process="agent")
    run_agent(settings, Executioner(options.orders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
