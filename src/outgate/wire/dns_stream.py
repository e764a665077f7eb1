"""DNS messages in a byte stream: two bytes of length before each (RFC 1035 §4.2.2)."""

from outgate.wire.dns import DnsFormatError


class MessageStream:
    """Cuts a stream into messages, however its bytes arrive. Holds at most one unfinished message."""

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes. Raises :class:`DnsFormatError` when too long a one is announced."""
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        offset = 0
        while len(buffer) - offset >= 2:
            length = int.from_bytes(buffer[offset : offset + 2], "big")
            if length > self._message_bytes_max:
                raise DnsFormatError(f"a message of {length} bytes is announced; {self._message_bytes_max} are taken")
            if len(buffer) - offset - 2 < length:
                break
            messages.append(bytes(buffer[offset + 2 : offset + 2 + length]))
            offset += 2 + length
        del buffer[:offset]
        return messages


def frame(message: bytes) -> bytes:
    """``message`` as it goes into a stream; at most 65,535 bytes."""
    return len(message).to_bytes(2, "big") + message
