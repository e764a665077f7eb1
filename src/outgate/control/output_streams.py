"""An execution's output as text, as it comes: characters are never cut, and each piece says where it ends."""

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from outgate.control.callers import Caller
from outgate.control.executions import check_execution_id
from outgate.control.host_places import locate_devbox, speaking_with
from outgate.control.services import Services
from outgate.errors import InvalidValueError

OFFSET_MAX: Final = 2**53 - 1
"""What every client's numbers can hold."""


class OutputName(StrEnum):
    """One of an execution's two streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Text, and the byte of the stream that follows it: a client that reconnects asks for the rest from there."""

    text: str
    end: int


async def open_output(
    services: Services, caller: Caller, devbox_id: str, execution_id: str, *, name: OutputName, offset: int
) -> AsyncGenerator[OutputPiece, None]:
    """The output from byte ``offset`` on; ends with the execution. Whoever has it must close it.

    Raises NotFoundError, HostUnavailableError (also from the generator, when the host goes away meanwhile),
    InvalidValueError, TooManyWaitsError.
    """
    if not 0 <= offset <= OFFSET_MAX:
        raise InvalidValueError(f"An offset is a byte position from 0 to {OFFSET_MAX}.", field="offset")
    place = await locate_devbox(services, caller, devbox_id)
    check_execution_id(execution_id)
    async with AsyncExitStack() as stack:
        stack.enter_context(services.waits.hold(caller.account_id, services.settings.waits_max))
        with speaking_with(place):
            following = services.gateway.follow_output(place.url, devbox_id, execution_id, name.value, offset)
            pieces = await stack.enter_async_context(following)
        opened = stack.pop_all()

    async def read() -> AsyncGenerator[OutputPiece, None]:
        async with opened:
            with speaking_with(place):
                async for piece in decode_pieces(pieces, offset):
                    yield piece

    return read()


async def decode_pieces(pieces: AsyncIterator[bytes], offset: int) -> AsyncGenerator[OutputPiece, None]:
    """Bytes as text. A character that is not complete waits for the next piece; what is no UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for piece in pieces:
        text = decoder.decode(piece)
        offset += len(piece)
        if text:
            # The bytes that the decoder keeps come again after a reconnection.
            yield OutputPiece(text, offset - len(decoder.getstate()[0]))
    rest = decoder.decode(b"", final=True)
    if rest:
        yield OutputPiece(rest, offset)
