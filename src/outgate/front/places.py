"""How many connections there may be, all in all and of one client. A client has its place before its handshake."""

from collections import Counter
from collections.abc import Callable
from typing import Final

CONNECTIONS_MAX: Final = 8192
"""Two descriptors and some 200 KiB each at worst; more than that is refused at once."""
PER_CLIENT_MAX: Final = 1536
"""A page with hundreds of parts and one account's long polls fit; six clients' worth is more than there is."""


class Place:
    """What one connection holds until :meth:`free`, which may be called again."""

    __slots__ = ("_free",)

    def __init__(self, free: Callable[[], None]) -> None:
        self._free: Callable[[], None] | None = free

    def free(self) -> None:
        """Give it back."""
        free, self._free = self._free, None
        if free is not None:
            free()


class Places:
    """All of them. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self._taken = 0

    def take(self, client: str | None) -> Place | None:
        """A place for another connection of ``client``; None when there is none. Devboxes (None) have no bound of
        their own here: the gate bounds their flows.
        """
        if self._taken >= CONNECTIONS_MAX or (client is not None and self._of[client] >= PER_CLIENT_MAX):
            return None
        self._taken += 1
        if client is not None:
            self._of[client] += 1
        return Place(lambda: self._give_back(client))

    def _give_back(self, client: str | None) -> None:
        self._taken -= 1
        if client is not None:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
