"""Names resolved as the system does it, on threads that nobody waits for when the process ends."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from outgate.model.addresses import IPAddress

LOOKUPS_MAX: Final = 32
"""At once. Nothing can interrupt getaddrinfo(3): a name server that keeps silent holds a thread for half a minute."""


class SystemLookups:
    """getaddrinfo(3), with a bound on what is under way. Belongs to one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOKUPS_MAX)

    async def __call__(self, host: str, port: int) -> Sequence[IPAddress]:
        """The addresses of ``host``, in the system's order of preference. Raises OSError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Sequence[IPAddress]] = loop.create_future()

        def settle(found: Sequence[IPAddress] | OSError) -> None:
            self._places.release()
            if answered.done():
                return  # whoever asked gave up
            if isinstance(found, OSError):
                answered.set_exception(found)
            else:
                answered.set_result(found)

        def work() -> None:
            found = _look_up(host, port)
            # The loop may have ended meanwhile: then nobody asks any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, found)

        # Daemons, unlike an executor's threads: the end of the process does not wait for a silent name server.
        threading.Thread(target=work, name="webhook-lookup", daemon=True).start()
        return await answered


def _look_up(host: str, port: int) -> Sequence[IPAddress] | OSError:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except OSError as error:
        return error
    except UnicodeError:
        # The codec that Python puts before getaddrinfo refuses labels that are too long.
        return OSError("the name cannot be looked up")
    # A scope belongs to link-local addresses, to which nothing is delivered.
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
