"""Connections into devboxes, by way of the agent's dial service on the same host."""

import asyncio
import socket
from pathlib import Path
from typing import Final

import msgspec

from outgate.errors import OutgateError
from outgate.model.tunnels import DialAnswer, DialRequest, DialStatus

ANSWER_WAIT_S: Final = 10.0
"""Longer than the service takes at most."""
_ANSWER_BYTES_MAX: Final = 1024
_DESCRIPTORS_MAX: Final = 1
_ANSWER: Final = msgspec.json.Decoder(DialAnswer)


class DialError(OutgateError):
    """There is no connection; ``status`` says why, as far as the devbox is concerned."""

    code = "dial_failed"

    def __init__(self, message: str, status: DialStatus) -> None:
        super().__init__(message)
        self.status = status


async def dial(service: Path, devbox_id: str, port: int) -> socket.socket:
    """A connected, non-blocking TCP socket to ``port`` on the devbox's own loopback address.

    ``service`` is the dial service's socket. Raises :class:`DialError`; an agent that does not answer counts as
    :attr:`DialStatus.BUSY`, because it is back in a moment.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as asking:
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                answer, opened = await _ask(asking, service, DialRequest(devbox_id, port))
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            raise DialError(f"The agent does not answer: {type(error).__name__} {error}.", DialStatus.BUSY) from error
    if opened is None:
        raise DialError(f"Port {port} of {devbox_id}: {answer.status} {answer.detail}".rstrip() + ".", answer.status)
    return opened


async def _ask(asking: socket.socket, service: Path, request: DialRequest) -> tuple[DialAnswer, socket.socket | None]:
    # Connecting to a unix socket and one short message never wait, but for a full backlog, which counts as busy.
    asking.connect(str(service))
    asking.send(msgspec.json.encode(request))
    await _until_readable(asking)
    data, descriptors, _flags, _address = socket.recv_fds(
        asking, _ANSWER_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
    )
    opened = socket.socket(fileno=descriptors[0]) if descriptors else None
    try:
        return _check_answer(data, has_socket=opened is not None), _unblocked(opened)
    except BaseException:
        if opened is not None:
            opened.close()
        raise


def _check_answer(data: bytes, *, has_socket: bool) -> DialAnswer:
    if not data:
        raise ConnectionResetError("it closed the connection")
    answer = _ANSWER.decode(data)
    if has_socket is not (answer.status is DialStatus.CONNECTED):
        raise ConnectionResetError("its answer does not fit what came with it")
    return answer


def _unblocked(opened: socket.socket | None) -> socket.socket | None:
    if opened is not None:
        opened.setblocking(False)
    return opened


async def _until_readable(asking: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(asking.fileno(), wake)
    try:
        await readable
    finally:
        loop.remove_reader(asking.fileno())
