"""Opens connections to ports inside devboxes, for processes of this installation that have no privileges.

It listens on a unix socket and asks the kernel who is at the other end. One message is the request, one is the
answer, which carries the connected socket along (SCM_RIGHTS, unix(7)). The connection begins in the devbox's own
network namespace and goes to its loopback address, so a server that listens on 127.0.0.1 alone is reached, and no
packet of it ever crosses the devbox's link: nothing has to be opened in the filter for it.

What is in the devbox cannot hold the service up: the thread that visits its namespace only makes a socket there;
waiting for the connection costs a descriptor, for a bounded time and number.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import structlog

from outgate.client.peers import peer_uid
from outgate.dataplane import netns
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import OutgateError
from outgate.model.addresses import PORT_MAX, PORT_MIN
from outgate.model.tunnels import DialAnswer, DialRequest, DialStatus

REQUEST_BYTES_MAX: Final = 512
"""A devbox id and a port take some sixty."""
REQUEST_WAIT_S: Final = 5.0
CONNECT_WAIT_S: Final = 3.0
"""On loopback a connection stands at once, unless the server's backlog is full: two lost SYNs then."""
DIALS_MAX: Final = 1024
DIALS_PER_DEVBOX_MAX: Final = 128
"""Attempts under way. They last longer than a moment only where a server in the devbox does not accept."""
_BACKLOG: Final = 1024
_ACCEPT_PAUSE_S: Final = 0.1
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_REFUSALS: Final = frozenset({errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EAFNOSUPPORT})

_REQUEST: Final = msgspec.json.Decoder(DialRequest)

FindSlot = Callable[[str], int | None]
"""Devbox id → its slot while it runs, else None."""


def bind_dial_socket(path: Path) -> socket.socket:
    """The listening socket at ``path``. Anybody on this host may connect; who is served is asked of the kernel.

    One that was left there is replaced. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    bound.bind(str(draft))
    draft.chmod(0o666)
    bound.listen(_BACKLOG)
    draft.replace(path)
    return bound


class DialService:
    """Serves the processes of ``uids``. Belongs to the event loop's thread."""

    def __init__(self, layout: NetworkLayout, find_slot: FindSlot, uids: Collection[int]) -> None:
        self._layout = layout
        self._find_slot = find_slot
        self._uids = frozenset(uids)
        self._under_way: Counter[str] = Counter()
        self._serving: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("dial")

    async def serve(self, bound: socket.socket) -> None:
        """Serve ``bound`` (non-blocking) until cancelled."""
        loop = asyncio.get_running_loop()
        # A thread of its own: namespaces belong to threads, and the kernel's thread may be busy with an update.
        with ThreadPoolExecutor(1, thread_name_prefix="dial") as visitor:
            try:
                while True:
                    try:
                        peer, _ = await loop.sock_accept(bound)
                    except OSError as error:
                        self._log.warning("accept_failed", error=str(error))
                        await asyncio.sleep(_ACCEPT_PAUSE_S)
                        continue
                    self._admit(peer, visitor)
            finally:
                for task in self._serving:
                    task.cancel()
                await asyncio.gather(*self._serving, return_exceptions=True)

    def _admit(self, peer: socket.socket, visitor: ThreadPoolExecutor) -> None:
        peer.setblocking(False)
        if peer_uid(peer) not in self._uids or len(self._serving) >= DIALS_MAX:
            peer.close()
            return
        task = asyncio.ensure_future(self._answer(peer, visitor))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _answer(self, peer: socket.socket, visitor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        with peer, contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
            async with asyncio.timeout(REQUEST_WAIT_S):
                request = _REQUEST.decode(await loop.sock_recv(peer, REQUEST_BYTES_MAX))
            answer, opened = await self._dial(request, visitor)
            with opened or contextlib.nullcontext():
                descriptors = [] if opened is None else [opened.fileno()]
                # One short message into an empty buffer: it is sent at once, or the peer is gone.
                socket.send_fds(peer, [msgspec.json.encode(answer)], descriptors)

    async def _dial(self, request: DialRequest, visitor: ThreadPoolExecutor) -> tuple[DialAnswer, socket.socket | None]:
        devbox_id = request.devbox_id
        if not PORT_MIN <= request.port <= PORT_MAX:
            return DialAnswer(DialStatus.REFUSED, "no such port"), None
        if self._under_way[devbox_id] >= DIALS_PER_DEVBOX_MAX:
            return DialAnswer(DialStatus.BUSY), None
        self._under_way[devbox_id] += 1
        try:
            return await self._try_loopback(devbox_id, request.port, visitor)
        finally:
            self._under_way[devbox_id] -= 1
            if not self._under_way[devbox_id]:
                del self._under_way[devbox_id]

    async def _try_loopback(
        self, devbox_id: str, port: int, visitor: ThreadPoolExecutor
    ) -> tuple[DialAnswer, socket.socket | None]:
        detail = ""
        for family, address in _LOOPBACK:
            opened = await self._open(devbox_id, family, visitor)
            if opened is None:
                return DialAnswer(DialStatus.NOT_RUNNING), None
            error = await _connect(opened, address, port)
            if error is None:
                return DialAnswer(DialStatus.CONNECTED), opened
            opened.close()
            detail = os.strerror(error)
            if error not in _REFUSALS:
                break
        return DialAnswer(DialStatus.REFUSED, detail), None

    async def _open(
        self, devbox_id: str, family: socket.AddressFamily, visitor: ThreadPoolExecutor
    ) -> socket.socket | None:
        """A socket in the devbox's namespace; None when the devbox does not run."""
        slot = self._find_slot(devbox_id)
        if slot is None:
            return None
        name = self._layout.devbox_namespace(slot)
        try:
            opened = await asyncio.get_running_loop().run_in_executor(visitor, _open_in, name, family)
        except (OutgateError, OSError) as error:
            self._log.info("not_dialled", devbox_id=devbox_id, error=str(error))
            return None
        # A slot passes from one devbox to the next only when the first does not run any more: if it has the slot
        # still, the namespace was its own.
        if self._find_slot(devbox_id) != slot:
            opened.close()
            return None
        return opened


def _open_in(namespace: str, family: socket.AddressFamily) -> socket.socket:
    with netns.entered(namespace):
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def _connect(opened: socket.socket, address: str, port: int) -> int | None:
    """Connect within CONNECT_WAIT_S; None, or the error's number."""
    try:
        async with asyncio.timeout(CONNECT_WAIT_S):
            await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or errno.ECONNREFUSED
    except BaseException:
        opened.close()
        raise
    return None
