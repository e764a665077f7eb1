"""What the api asks of a host's agent at once, not by desired state: executions.

The protocol is what :mod:`outgate.control` needs; the ``client`` layer has the one over HTTP.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from outgate.model.desired import DevboxActivity, ExecutionRequest, ExecutionState
from outgate.model.executions import LogPage, StdinOutcome, StdinRequest
from outgate.model.snapshots import SnapshotRemoval, SnapshotState


class AgentGateway(Protocol):
    """One way to reach agents. ``url`` is the one the host reported (``unix:/path`` or ``http://…``).

    All raise OSError when the agent cannot be reached, which includes its answering with nonsense, and
    PeerRefusedError with the agent's own code and message when what is there does not allow it.
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

    async def start_snapshot(self, url: str, snapshot_id: str, devbox_id: str) -> SnapshotState | None:
        """Begin the snapshot, or find it begun (``snapshot_id`` decides)."""
        ...

    async def read_snapshot(self, url: str, snapshot_id: str, *, wait_s: float) -> SnapshotState | None:
        """The snapshot as soon as it is over or after ``wait_s``. None: the agent knows of no such snapshot."""
        ...

    async def remove_snapshot(self, url: str, snapshot_id: str) -> SnapshotRemoval | None:
        """Clear away what the host has of the snapshot; one that it does not have counts as removed."""
        ...

    async def kill_execution(
        self, url: str, devbox_id: str, execution_id: str, *, is_group: bool
    ) -> ExecutionState | None:
        """Kill the command's own process, or all of its group; its state then. None: no such execution there."""
        ...

    async def send_stdin(
        self, url: str, devbox_id: str, execution_id: str, request: StdinRequest
    ) -> StdinOutcome | None:
        """Type into the command. None: no such execution there."""
        ...

    async def read_logs(
        self, url: str, devbox_id: str, execution_id: str | None, shell_name: str | None
    ) -> LogPage | None:
        """What was run in the devbox and what it said. None: no such execution there."""
        ...

    def follow_output(
        self, url: str, devbox_id: str, execution_id: str, stream: str, offset: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Bytes of ``stdout`` or ``stderr`` from ``offset`` on, as they come, until the command has ended."""
        ...

    def read_file(self, url: str, devbox_id: str, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A file's bytes; the iterator raises OSError when they break off."""
        ...

    async def write_file(self, url: str, devbox_id: str, path: str, data: AsyncIterator[bytes]) -> None:
        """Make a file of ``data``. Raises what ``data`` raises, and no file is made anew then."""
        ...

    async def read_activity(self, url: str, devbox_id: str) -> DevboxActivity | None:
        """What runs in the devbox on its users' behalf. None: the agent does not know it."""
        ...
