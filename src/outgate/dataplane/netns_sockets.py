"""Sockets of another network namespace than the one the gate's main thread lives in.

Resolvers such as 127.0.0.53 can be reached from the host's namespace alone, and a socket belongs for good to the
namespace of the thread that makes it. So a small thread stays behind there, keeps a few unconnected sockets in
stock, and does nothing else; connecting them, as everything else, is the main thread's work.
"""

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

_STOCK: Final = {socket.SOCK_DGRAM: 32, socket.SOCK_STREAM: 4}
"""Ready sockets per family. A burst beyond them waits some 50 µs for each."""
_TAKE_TIMEOUT_S: Final = 2.0
_REFILL_BELOW: Final = 0.5


class SocketSource(Protocol):
    """Where unconnected sockets of the right namespace come from."""

    def take(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A fresh non-blocking socket. Raises OSError when there is none to be had."""
        ...


class NamespaceSockets:
    """A thread that makes sockets in the namespace the process is in when this is made.

    Make it before the main thread enters another namespace. ``prepare`` runs first in the thread (to give up
    privileges there); an exception in it is raised here.
    """

    def __init__(self, families: tuple[socket.AddressFamily, ...], prepare: Callable[[], None] | None = None) -> None:
        self._families = families
        self._prepare = prepare
        self._stocks: dict[tuple[int, int], SimpleQueue[socket.socket | OSError]] = {
            (family, kind): SimpleQueue() for family in families for kind in _STOCK
        }
        self._orders: SimpleQueue[tuple[socket.AddressFamily, socket.SocketKind] | None] = SimpleQueue()
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="host-sockets", daemon=True)
        self._thread.start()
        error = self._started.get()
        if error is not None:
            raise error

    def take(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A fresh non-blocking socket of the other namespace. Raises OSError when it could not be made."""
        stock = self._stocks[family, kind]
        if stock.qsize() < _STOCK[kind] * _REFILL_BELOW:
            self._orders.put((family, kind))
        try:
            made = stock.get(timeout=_TAKE_TIMEOUT_S)
        except Empty:
            raise OSError(errno.ETIMEDOUT, "the thread that makes the host's sockets does not answer") from None
        if isinstance(made, OSError):
            raise made
        return made

    def close(self) -> None:
        """End the thread and close what is in stock."""
        self._orders.put(None)
        self._thread.join()
        for stock in self._stocks.values():
            while not stock.empty():
                made = stock.get()
                if isinstance(made, socket.socket):
                    made.close()

    def _run(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._started.put(error)
            return
        for family in self._families:
            for kind in _STOCK:
                self._refill(family, kind)
        self._started.put(None)
        while (order := self._orders.get()) is not None:
            self._refill(*order)

    def _refill(self, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
        stock = self._stocks[family, kind]
        while stock.qsize() < _STOCK[kind]:
            try:
                made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError as error:
                # One error for the one who waits; with sockets in stock nobody does.
                if stock.empty():
                    stock.put(error)
                return
            stock.put(made)


def close_quietly(descriptor: socket.socket) -> None:
    """Close a socket whose last error is of no interest."""
    with contextlib.suppress(OSError):
        descriptor.close()
