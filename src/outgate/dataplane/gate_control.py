"""The control socket between agent and gate: frames of JSON, each behind four bytes of length.

The gate's side is :class:`GateControl`, on the gate's loop. The agent uses :func:`encode_frame` and
:class:`FrameStream` on its own side. When the agent goes, the gate goes: it must not act on a table that
nobody updates.
"""

import select
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from outgate.dataplane.gate_config import GateConfig
from outgate.dataplane.loop import Loop
from outgate.errors import OutgateError
from outgate.model.desired import GateApplied, GateApply, GateReady, GateRecords, GateToAgent, GateWarning
from outgate.model.measures import GateMeasures

FRAME_BYTES_MAX: Final = 256 << 20
"""A full table: 5,000 devboxes, and some thousand policies with a thousand rules each (about 100 bytes a rule)."""
_LENGTH_BYTES: Final = 4
_RECEIVE_BYTES: Final = 1 << 18
_RECORDS_WAIT_ABOVE_BYTES: Final = 1 << 20
"""Records stay in the recorder's own bounded queue while this much waits for the agent to read."""
_UNSENT_BYTES_MAX: Final = 16 << 20
"""An agent that reads nothing at all is as good as gone."""


class ControlError(OutgateError):
    """The other side of the control socket sent what it must not send."""

    code = "gate_control"


class FrameStream:
    """Cuts a stream into frames, however its bytes arrive."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """The frames' contents that ``data`` completes. Raises :class:`ControlError` for an absurd length."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        offset = 0
        while len(buffer) - offset >= _LENGTH_BYTES:
            start = offset + _LENGTH_BYTES
            length = int.from_bytes(buffer[offset:start], "big")
            if length > self._frame_bytes_max:
                raise ControlError(f"a frame of {length} bytes was announced; {self._frame_bytes_max} are taken.")
            if len(buffer) - start < length:
                break
            frames.append(bytes(buffer[start : start + length]))
            offset = start + length
        del buffer[:offset]
        return frames


_encode: Final = msgspec.json.Encoder().encode
_decode_apply: Final = msgspec.json.Decoder(GateApply).decode
_decode_config: Final = msgspec.json.Decoder(GateConfig).decode
_decode_from_gate: Final = msgspec.json.Decoder(GateToAgent).decode


def encode_frame(message: GateConfig | GateApply | GateToAgent) -> bytes:
    """``message`` as one frame."""
    content = _encode(message)
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def decode_from_gate(content: bytes) -> GateToAgent:
    """What the gate says in one frame. Raises :class:`ControlError`."""
    try:
        message: GateToAgent = _decode_from_gate(content)
    except msgspec.MsgspecError as error:
        raise ControlError(f"the gate sent what is no message: {error}.") from None
    return message


def receive_config(control: socket.socket) -> GateConfig:
    """Read the first frame, blocking. Raises :class:`ControlError`, also when the agent hangs up."""
    length = int.from_bytes(_receive_exactly(control, _LENGTH_BYTES), "big")
    if length > FRAME_BYTES_MAX:
        raise ControlError(f"a frame of {length} bytes was announced; {FRAME_BYTES_MAX} are taken.")
    try:
        return _decode_config(_receive_exactly(control, length))
    except msgspec.MsgspecError as error:
        raise ControlError(f"the first frame is no gate configuration: {error}.") from None


def _receive_exactly(control: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            raise ControlError("the agent hung up before the gate was configured.")
        data += part
    return bytes(data)


class GateControl:
    """The gate's end: updates come in through ``on_apply``, everything else goes out.

    ``on_end`` is called once, with a sentence that is empty when the agent closed the socket in good order.
    """

    def __init__(
        self,
        loop: Loop,
        control: socket.socket,
        on_apply: Callable[[GateApply], GateApplied],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._socket = control
        self._on_apply = on_apply
        self._on_end = on_end
        self._stream = FrameStream()
        self._unsent = bytearray()
        self._is_ended = False
        control.setblocking(False)
        loop.register(control.fileno(), select.EPOLLIN, self._on_ready)

    def send(self, message: GateReady | GateApplied | GateWarning) -> None:
        """Send ``message``, as soon as the agent reads."""
        self._unsent += encode_frame(message)
        self._flush()

    def send_records(self, records: GateRecords) -> bool:
        """Send ``records``; False, and nothing done, while too much waits already."""
        return self._offer(records)

    def send_measures(self, measures: GateMeasures) -> None:
        """Send ``measures``, or leave it while too much waits already: the next ones say it all again."""
        self._offer(measures)

    def _offer(self, message: GateRecords | GateMeasures) -> bool:
        if len(self._unsent) > _RECORDS_WAIT_ABOVE_BYTES:
            return False
        self._unsent += encode_frame(message)
        self._flush()
        return True

    def _on_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self._is_ended:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"the control socket broke: {error.strerror}.")
            return
        if not data:
            self._end("")
            return
        try:
            for content in self._stream.receive(data):
                self.send(self._on_apply(_decode_apply(content)))
        except (ControlError, msgspec.MsgspecError) as error:
            self._end(f"the agent sent what is no update: {error}")

    def _flush(self) -> None:
        if self._is_ended:
            return
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(f"the control socket broke: {error.strerror}.")
            return
        if len(self._unsent) > _UNSENT_BYTES_MAX:
            self._end("the agent does not read.")
            return
        self._loop.modify(self._socket.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))

    def _end(self, text: str) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._loop.unregister(self._socket.fileno())
            self._on_end(text)
