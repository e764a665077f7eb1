"""Files in devboxes. Nothing of them is kept here: bytes go through, a piece at a time."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from outgate.clock import wall_ms
from outgate.control.callers import Caller
from outgate.control.host_places import HostPlace, locate_devbox, speaking_with
from outgate.control.services import Services
from outgate.errors import InvalidValueError

PATH_LENGTH_MAX: Final = 4095
"""Linux' PATH_MAX without its end, in bytes."""


async def open_file(
    services: Services, caller: Caller, devbox_id: str, path: str, *, field: str
) -> AsyncGenerator[bytes, None]:
    """A file's bytes. It is open when this returns; whoever has it must close it.

    Raises NotFoundError, InvalidValueError (a directory, no permission and so on), ConflictError when the devbox is
    not running, HostUnavailableError (also from the generator, when the bytes break off), TooManyWaitsError.
    """
    place = await _locate(services, caller, devbox_id, path, field=field)
    async with AsyncExitStack() as stack:
        stack.enter_context(services.waits.hold(caller.account_id, services.settings.waits_max))
        with speaking_with(place, field=field):
            pieces = await stack.enter_async_context(services.gateway.read_file(place.url, devbox_id, path))
        opened = stack.pop_all()

    async def read() -> AsyncGenerator[bytes, None]:
        async with opened:
            with speaking_with(place, field=field):
                async for piece in _in_use(services, devbox_id, pieces):
                    yield piece

    return read()


async def _in_use(services: Services, devbox_id: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``pieces``; as long as they flow, the devbox is not idle."""
    async for piece in pieces:
        services.activity.note(devbox_id, wall_ms())
        yield piece


async def write_file(
    services: Services, caller: Caller, devbox_id: str, path: str, data: AsyncIterator[bytes], *, field: str
) -> None:
    """Make a file of ``data``, and the directories above it. Raises as :func:`open_file`, and what ``data`` raises."""
    place = await _locate(services, caller, devbox_id, path, field=field)
    with services.waits.hold(caller.account_id, services.settings.waits_max), speaking_with(place, field=field):
        await services.gateway.write_file(place.url, devbox_id, path, _in_use(services, devbox_id, data))


async def _locate(services: Services, caller: Caller, devbox_id: str, path: str, *, field: str) -> HostPlace:
    if not path or "\x00" in path:
        raise InvalidValueError("A path is not empty and holds no NUL.", field=field)
    if len(path.encode("utf-8", "surrogatepass")) > PATH_LENGTH_MAX:
        raise InvalidValueError(f"A path has at most {PATH_LENGTH_MAX} bytes.", field=field)
    place = await locate_devbox(services, caller, devbox_id)
    place.check_running("files are read and written")
    services.activity.note(devbox_id, wall_ms())
    return place
