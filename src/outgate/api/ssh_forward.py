"""``ssh -L``: a channel to a port of the devbox's own loopback address, and to nothing else.

A connection is opened inside the devbox's network namespace, where every other destination would be subject to its
policy as any flow of it; but what a client forwards is inbound, so only what listens in the devbox is offered.
"""

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import asyncssh

from outgate.api.ssh_flow import ChannelFlow, ChannelNeeds
from outgate.client.dialer import DialError, dial
from outgate.model.addresses import PORT_MAX

_READ_BYTES: Final = 32 * 1024
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.", ""})


def is_own_loopback(host: str) -> bool:
    """Whether ``host`` names the devbox's own loopback."""
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def open_forward(service: Path, needs: ChannelNeeds, host: str, port: int) -> "Forward":
    """The session of a forwarded connection. Raises asyncssh.ChannelOpenError with the reason."""
    if not is_own_loopback(host):
        message = "Only the devbox's own ports can be forwarded: write localhost before the port"
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, message)
    if not 1 <= port <= PORT_MAX:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "There is no such port")
    try:
        return Forward(needs, await dial(service, needs.place.devbox_id, port))
    except DialError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.message) from None


class Forward(ChannelFlow, asyncssh.SSHTCPSession[bytes]):
    """See asyncssh.SSHTCPSession for when each method is called. Owns the socket."""

    def __init__(self, needs: ChannelNeeds, opened: socket.socket) -> None:
        super().__init__(needs)
        self._opened = opened

    def session_started(self) -> None:
        """Both ends are open."""
        self.begin(self._run())

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        super().connection_lost(exc)
        if self.work is None:
            self._opened.close()

    async def _run(self) -> None:
        feeding = asyncio.ensure_future(self._feed())
        try:
            await self._drain()
            await feeding
        except OSError:
            pass  # one of the two is gone; the other is told below
        finally:
            self.begin_cleanup()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            self._opened.close()
            self.channel.close()

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self.receive():
            self.note_use()
            await loop.sock_sendall(self._opened, data)
        self._opened.shutdown(socket.SHUT_WR)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._opened, _READ_BYTES):
            self.note_use()
            await self.send(data)
        self.channel.write_eof()
