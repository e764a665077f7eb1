"""Dialling a named host: its own addresses, each judged between resolution and connect."""

import errno
from collections.abc import Callable

from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.relay_dial import Connected, Race
from outgate.dataplane.relay_verdicts import may_dial
from outgate.dataplane.resolver import Resolution, Resolver
from outgate.model.names import DomainName
from outgate.model.verdict import Deny

DialEnd = Connected | OSError | Deny
"""An open connection, the error of the last attempt, or why no address may be dialled."""


class NamedDial:
    """One connection to ``name``, TCP ``port``, for ``entry``'s devbox.

    ``on_end`` is called once, perhaps by :meth:`start`, and not after :meth:`cancel`.
    """

    __slots__ = ("_entry", "_is_over", "_loop", "_name", "_on_end", "_port", "_race")

    def __init__(
        self, loop: Loop, entry: DevboxEntry, name: DomainName, port: int, on_end: Callable[[DialEnd], None]
    ) -> None:
        self._loop = loop
        self._entry = entry
        self._name = name
        self._port = port
        self._on_end = on_end
        self._race: Race | None = None
        self._is_over = False

    def start(self, table: GateTable, resolver: Resolver) -> None:
        """Resolve the name, unless its wildcard has given this devbox enough names: the question itself tells."""
        deny = table.wildcard_budget.spend(self._entry.id, self._entry.policy, self._name, self._loop.now())
        if deny is not None:
            self._end(deny)
        else:
            resolver.resolve(self._name, self._on_resolved)

    def cancel(self) -> None:
        """Drop every attempt."""
        self._is_over = True
        if self._race is not None:
            self._race.cancel()
            self._race = None

    def _on_resolved(self, resolution: Resolution) -> None:
        if self._is_over:
            return
        denials = {address: may_dial(self._entry, self._name, address, self._port) for address in resolution.addresses}
        addresses = [address for address, deny in denials.items() if deny is None]
        if addresses:
            self._race = Race(self._loop, addresses, self._port, self._on_raced)
            self._race.start()
            return
        deny = next((deny for deny in denials.values() if deny is not None), None)
        self._end(OSError(errno.EHOSTUNREACH, resolution.failure or "no address") if deny is None else deny)

    def _on_raced(self, end: Connected | OSError) -> None:
        self._race = None
        if isinstance(end, Connected):
            # The policy or the host's addresses may have changed while the connection was on its way.
            deny = may_dial(self._entry, self._name, end.address, self._port)
            if deny is not None:
                end.socket.close()
                self._end(deny)
                return
        self._end(end)

    def _end(self, end: DialEnd) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end(end)
