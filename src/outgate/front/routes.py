"""The tunnels of this host, as the api last said, and who uses them just now."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from outgate.model.tunnels import TunnelFeed, TunnelRoute

REQUESTS_MAX: Final = 4096
"""Requests under way, over all tunnels: each holds at most some 400 KiB and two descriptors."""
REQUESTS_PER_TUNNEL_MAX: Final = 1024
"""A page with hundreds of parts, or as many sockets left open, fits; one tunnel cannot take all."""


class TooManyRequestsError(Exception):
    """The front, or this tunnel, has as many requests under way as it may."""


class RouteTable:
    """Tunnels by key. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._routes: dict[str, TunnelRoute] = {}
        self._users: dict[str, set[asyncio.Transport]] = {}
        self._requests = 0
        self.seq = 0
        """How far the feed has been taken over; 0 before the first of it."""

    def find(self, key: str) -> TunnelRoute | None:
        """The tunnel with this key."""
        return self._routes.get(key)

    def apply(self, feed: TunnelFeed) -> None:
        """Take over what changed, and cut every request of a tunnel that is gone."""
        before = self._routes if feed.full else {}
        if feed.full:
            self._routes = {}
        for route in feed.tunnels:
            self._routes[route.key] = route
        for key in feed.gone:
            self._routes.pop(key, None)
        self._cut({*feed.gone, *(before.keys() - self._routes.keys())})
        self.seq = feed.seq

    def _cut(self, keys: Collection[str]) -> None:
        for key in keys:
            for transport in tuple(self._users.get(key, ())):
                transport.abort()

    @contextmanager
    def using(self, key: str, transport: asyncio.Transport) -> Iterator[None]:
        """A request on ``transport`` uses the tunnel for the length of the block.

        Raises :class:`TooManyRequestsError`.
        """
        users = self._users.get(key, set())
        if self._requests >= REQUESTS_MAX or len(users) >= REQUESTS_PER_TUNNEL_MAX:
            raise TooManyRequestsError
        self._users[key] = users
        users.add(transport)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            users.discard(transport)
            if not users:
                self._users.pop(key, None)
