"""One accepted connection: its record in the journal, TLS where the service wants it, and the service itself."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from outgate import clock
from outgate.cli.demo.certificates import TlsLayer
from outgate.cli.demo.journal import Closing, Connection
from outgate.cli.demo.services import CHUNK, Service, Wire

TICK_S = 0.01
"""How often a stream sends: fine enough that a cut is seen within 10 ms."""


Register = Callable[["FarConnection", asyncio.Transport], Connection]


class FarConnection(asyncio.Protocol):
    """The asyncio side of one connection; what its service sees as its :class:`Wire`."""

    def __init__(
        self,
        register: Register,
        forget: Callable[["FarConnection"], None],
        make_service: Callable[[Wire], Service],
        tls: TlsLayer | None,
    ) -> None:
        """``register`` gives the record, which is filled in as things happen; ``forget`` hears of the end."""
        self._register = register
        self._forget = forget
        self._make_service = make_service
        self._tls = tls
        self._is_up = False
        self._may_write = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._transport = cast("asyncio.Transport", transport)
        self.record = self._register(self, self._transport)
        self._service = self._make_service(self)
        if self._tls is None:
            self._is_up = True
            self._service.opened()

    def data_received(self, data: bytes) -> None:
        """Count, decrypt, hand on."""
        self.record.bytes_in += len(data)
        self.record.last_in_s = clock.monotonic_s()
        if self._tls is None:
            self._service.received(data)
            return
        try:
            plain = self._tls.receive(data)
        except ssl.SSLError:
            self.finish()
            return
        finally:
            self._flush_tls(self._tls)
        if self._tls.is_up and not self._is_up:
            self._is_up = True
            self._service.opened()
        if plain:
            self._service.received(plain)

    def eof_received(self) -> bool:
        """The client's half is over; the service decides about ours."""
        self._service.ended()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Note how it ended."""
        self.record.closing = Closing.ENDED if error is None else Closing.RESET
        self.record.closed_s = clock.monotonic_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._forget(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we send."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Room again."""
        self._may_write = True

    def send(self, data: bytes) -> None:
        """Send ``data``, through TLS where there is TLS."""
        if self._transport.is_closing():
            return
        if self._tls is None:
            self._write(data)
        else:
            self._tls.encrypt(data)
            self._flush_tls(self._tls)

    def finish(self) -> None:
        """Send what is pending, then end."""
        self._transport.close()

    def stream(self, rate_bytes_s: float) -> None:
        """Send for ever, ``rate_bytes_s`` at most."""
        self._step(min(CHUNK_ROUND_MAX, max(1, int(rate_bytes_s * TICK_S))))

    def _step(self, count: int) -> None:
        if self._transport.is_closing():
            return
        if self._may_write:
            self.send((CHUNK * (count // len(CHUNK) + 1))[:count])
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._step, count)

    def _flush_tls(self, tls: TlsLayer) -> None:
        name = tls.take_name()
        if name is not None:
            self.record.server_name = name
        output = tls.take_output()
        if output:
            self._write(output)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        self.record.bytes_out += len(data)


CHUNK_ROUND_MAX = 4 * 1024 * 1024
"""One tick's worth of a stream at most, which is 400 MiB/s: more than one Python process sends."""
