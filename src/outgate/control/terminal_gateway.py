"""What the api asks of a host's agent to open terminals. The ``client`` layer has the one over unix sockets."""

from collections.abc import Mapping
from typing import Protocol

from outgate.client.terminals import Terminal
from outgate.model.terminals import PtyAction, PtyState, TerminalSize


class TerminalGateway(Protocol):
    """One way to terminals. ``url`` is the place that the host's agent reported.

    All raise :class:`outgate.client.terminals.TerminalRefusal` when the agent says no, and OSError when it cannot
    be reached.
    """

    async def run(
        self, url: str, devbox_id: str, command: str | None, environment: Mapping[str, str], size: TerminalSize | None
    ) -> Terminal:
        """Start ``command`` (None: a login shell); with ``size`` on a pseudo terminal."""
        ...

    async def attach_pty(self, url: str, devbox_id: str, name: str, size: TerminalSize | None) -> Terminal:
        """Attach to a PTY session, made if it is not there."""
        ...

    async def open_pty(self, url: str, devbox_id: str, name: str, size: TerminalSize | None) -> PtyState:
        """A PTY session as it is, made if it is not there."""
        ...

    async def control_pty(
        self,
        url: str,
        devbox_id: str,
        name: str,
        action: PtyAction,
        *,
        size: TerminalSize | None = None,
        signal: int = 0,
    ) -> PtyState:
        """Resize, signal or close a PTY session that is there."""
        ...
