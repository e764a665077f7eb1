"""Reading along with HTTP/1 requests that pass as they are, to tell what they ask for."""

from outgate.model.flow import BadHandshake, Handshake, HttpRequest
from outgate.wire.http1 import BodyPart, RequestReader, RequestRefused
from outgate.wire.http1_head import Upgrade


class RequestWatch:
    """The requests behind the first one of a connection, which ``reader`` has read. Changes nothing of what passes."""

    __slots__ = ("_reader", "is_over")

    def __init__(self, reader: RequestReader, first: Upgrade) -> None:
        self._reader = reader
        self.is_over = first is not Upgrade.NONE
        """Whether nothing that follows can be read: it is no HTTP/1 any more, or never was."""

    @property
    def passable(self) -> int:
        """How many of the client's next bytes need not come by :meth:`feed`."""
        return self._reader.passable

    def passed(self, count: int) -> None:
        """``count`` bytes did not come by."""
        self._reader.passed(count)

    def feed(self, data: bytes) -> None:
        """The client sent ``data``. Call :meth:`next` afterwards until it gives None."""
        self._reader.feed(data)

    def next(self) -> Handshake | None:
        """What the next request asks for; None when more bytes are needed or nothing more can be read."""
        while not self.is_over:
            event = self._reader.next()
            if event is None:
                break
            if isinstance(event, BodyPart):
                continue
            if isinstance(event, RequestRefused):
                self.is_over = True
                return BadHandshake(event.detail)
            self.is_over = event.upgrade is not Upgrade.NONE
            return HttpRequest(event.host)
        return None
