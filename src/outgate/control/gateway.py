"""What the api asks of a host's agent at once, not by desired state: executions.

The protocol is what :mod:`outgate.control` needs; the ``client`` layer has the one over HTTP.
"""

from typing import Protocol

from outgate.model.desired import ExecutionRequest, ExecutionState


class AgentGateway(Protocol):
    """One way to reach agents. ``url`` is the one the host reported (``unix:/path`` or ``http://…``).

    All raise OSError when the agent cannot be reached, which includes its answering with nonsense.
    """

    async def start_execution(self, url: str, devbox_id: str, request: ExecutionRequest) -> ExecutionState | None:
        """Start the command, or find it started (``execution_id`` decides). None: no such devbox there."""
        ...

    async def read_execution(
        self, url: str, devbox_id: str, execution_id: str, *, wait_s: float, last_n: int
    ) -> ExecutionState | None:
        """The execution with its last ``last_n`` lines, as soon as it is completed or after ``wait_s``.

        None: no such execution there.
        """
        ...

    async def kill_execution(self, url: str, devbox_id: str, execution_id: str) -> ExecutionState | None:
        """Kill the command; its state then. None: no such execution there."""
        ...
