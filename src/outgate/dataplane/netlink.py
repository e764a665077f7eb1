"""The netlink codec and socket that every hand-made netlink module shares.

Netlink messages are built and read as bytes here: the layers above say which attributes they mean and
never count padding. Encoders are pure; decoders are total (any bytes give a value or a
:class:`NetlinkError`). The kernel handles a request inside ``send()``, so a socket never has to wait
for an answer that is on its way; a receive timeout turns a request that was never answered into an
error instead of a hang.
"""

import ctypes
import errno
import hashlib
import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import msgspec

from outgate.errors import OutgateError

NETLINK_NETFILTER: Final = 12

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800

NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_unpack_attribute: Final = _ATTRIBUTE.unpack_from
_ERRNO: Final = struct.Struct("=i")

HEADER_BYTES: Final = _HEADER.size
ATTRIBUTE_BYTES_MAX: Final = 0xFFFF
"""The length field of an attribute has 16 bits; longer content must be cut into several messages."""

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SEND_BUFFER_BYTES: Final = 64 << 20
"""One transaction is one ``send()``: 1,000 devboxes with 100 rules each stay under this."""
_RECEIVE_BUFFER_BYTES: Final = 8 << 20
_RECEIVE_BYTES: Final = 1 << 17
"""The kernel fills dump messages up to 32 KiB; this is the size of one read, with room."""
_RECEIVE_TIMEOUT: Final = struct.pack("@ll", 5, 0)
_NETLINK_ADD_MEMBERSHIP: Final = 1
_SO_ATTACH_FILTER: Final = 26
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_DROPS: Final = 8
_FILTER_PROGRAM: Final = struct.Struct("@HP")
_FILTER_STEP_BYTES: Final = 8
_DUMP_ATTEMPTS_MAX: Final = 8
"""A dump that changes under us is read again; a table that never holds still is an error."""


class NetlinkError(OutgateError):
    """The kernel refused a request, or answered with something that is not netlink.

    ``errno`` is the kernel's (0 when the answer made no sense) and ``index`` the place of the refused
    message in its batch (0 for single requests, None when the batch as a whole was refused).
    """

    code = "netlink"

    def __init__(self, number: int, doing: str, *, index: int | None = 0, detail: str = "") -> None:
        what = os.strerror(number) if number else "malformed answer"
        super().__init__(f"{doing}: {what}{f' ({detail})' if detail else ''}.")
        self.errno = number
        self.index = index


class Message(msgspec.Struct, frozen=True, gc=False):
    """One netlink message as received: its type, flags, sequence number and what follows the header."""

    type: int
    flags: int
    sequence: int
    payload: bytes


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes. Raises :class:`NetlinkError` when it is longer than 64 KiB."""
    length = 4 + len(data)
    if length > ATTRIBUTE_BYTES_MAX:
        raise NetlinkError(errno.EMSGSIZE, f"encoding attribute {kind & _NLA_TYPE_MASK}")
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds the attributes ``parts``."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, value.to_bytes(1, "big"))


def u32_host(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the machine's byte order (rtnetlink)."""
    return attribute(kind, struct.pack("=I", value))


def u16_net(kind: int, value: int) -> bytes:
    """A 16-bit attribute in network byte order."""
    return attribute(kind, value.to_bytes(2, "big"))


def u32_net(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order (netfilter)."""
    return attribute(kind, value.to_bytes(4, "big"))


def u64_net(kind: int, value: int) -> bytes:
    """A 64-bit attribute in network byte order (netfilter)."""
    return attribute(kind, value.to_bytes(8, "big"))


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One whole message, padded so that another may follow it."""
    length = HEADER_BYTES + len(payload)
    return _HEADER.pack(length, kind, flags, sequence, 0) + payload + b"\0" * (-length & 3)


def parse_messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises :class:`NetlinkError` at the first malformed one."""
    offset = 0
    while offset + HEADER_BYTES <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < HEADER_BYTES or offset + length > len(data):
            raise NetlinkError(0, "reading netlink messages", detail=f"length {length} at {offset}")
        yield Message(kind, flags, sequence, data[offset + HEADER_BYTES : offset + length])
        offset += (length + 3) & ~3


def list_attributes(data: bytes) -> list[tuple[int, bytes]]:
    """(type, content) of each attribute in order. Raises :class:`NetlinkError` when one is malformed."""
    found: list[tuple[int, bytes]] = []
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _unpack_attribute(data, offset)
        if length < 4 or offset + length > end:
            raise NetlinkError(0, "reading netlink attributes", detail=f"length {length} at {offset}")
        found.append((kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by type; of a repeated type the last. Raises :class:`NetlinkError`."""
    return dict(list_attributes(data))


def parse_errno(received: Message) -> int:
    """The positive errno of an NLMSG_ERROR or NLMSG_DONE message; 0 for an acknowledgement."""
    if len(received.payload) < _ERRNO.size:
        return 0
    (value,) = _ERRNO.unpack_from(received.payload)
    return -int(value) if value < 0 else 0


def digest_messages(messages: Iterable[Message], skipped_bytes: int) -> bytes:
    """A digest of the messages' contents, without the first ``skipped_bytes`` of each."""
    digest = hashlib.blake2b(digest_size=16)
    for received in messages:
        digest.update(received.payload[skipped_bytes:])
    return digest.digest()


class _Closable(ABC):
    """Something that is closed at the end of the ``with`` that it is used in."""

    @abstractmethod
    def close(self) -> None:
        """Give the socket back. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NetlinkSocket(_Closable):
    """A netlink socket in the network namespace that the calling thread is in when it is made.

    It stays bound to that namespace wherever the thread goes afterwards. Not for use by two threads
    at once.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._configure()
        except OSError:
            self._socket.close()
            raise

    def _configure(self) -> None:
        self._socket.bind((0, 0))
        for level, option, value in (
            (socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES),
            (socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES),
            (_SOL_NETLINK, _NETLINK_CAP_ACK, 1),
        ):
            self._socket.setsockopt(level, option, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self._socket.fileno()

    def close(self) -> None:
        """See :class:`_Closable`."""
        self._socket.close()

    def take_sequence(self, count: int = 1) -> int:
        """The first of ``count`` fresh consecutive sequence numbers."""
        first = self._sequence + 1
        self._sequence = (self._sequence + count) & 0x7FFF_FFFF
        return first

    def send(self, data: bytes) -> None:
        """Hand ``data`` to the kernel, which has acted on all of it when this returns. Raises :class:`NetlinkError`."""
        try:
            self._socket.send(data)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, "sending to the kernel", index=None) from None

    def receive(self) -> bytes:
        """One datagram. Raises :class:`NetlinkError` when none comes, which means none was sent."""
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise NetlinkError(errno.ETIMEDOUT, "waiting for the kernel's answer", index=None) from None

    def receive_waiting(self, bytes_max: int = _RECEIVE_BYTES) -> bytes | None:
        """One datagram, cut to ``bytes_max``, if there is one now, else None."""
        try:
            return self._socket.recv(bytes_max, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def join(self, *groups: int, only: bytes = b"") -> None:
        """Receive what the kernel tells these multicast groups. Raises OSError.

        ``only``: a classic BPF program (``struct sock_filter``s); what it gives 0 for is left out before it takes
        room in the socket's buffer.
        """
        if only:
            program = ctypes.create_string_buffer(only, len(only))
            head = _FILTER_PROGRAM.pack(len(only) // _FILTER_STEP_BYTES, ctypes.addressof(program))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def observe_dropped(self) -> int:
        """How many datagrams found no room in the socket's buffer so far, modulo 2³². Raises OSError."""
        info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(info)[_MEMINFO_DROPS])

    def request(self, kind: int, flags: int, payload: bytes, *, doing: str) -> None:
        """Send one request and wait for its acknowledgement. Raises :class:`NetlinkError`."""
        sequence = self.take_sequence()
        self.send(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, payload))
        while True:
            for answer in parse_messages(self.receive()):
                if answer.sequence == sequence and answer.type == NLMSG_ERROR:
                    number = parse_errno(answer)
                    if number:
                        raise NetlinkError(number, doing)
                    return

    def query(self, kind: int, payload: bytes, *, doing: str) -> tuple[Message, ...]:
        """The answers to one request that is not a dump. Raises :class:`NetlinkError`."""
        sequence = self.take_sequence()
        self.send(message(kind, NLM_F_REQUEST | NLM_F_ACK, sequence, payload))
        answers: list[Message] = []
        while True:
            for answer in parse_messages(self.receive()):
                if answer.sequence != sequence:
                    continue
                if answer.type == NLMSG_ERROR:
                    number = parse_errno(answer)
                    if number:
                        raise NetlinkError(number, doing)
                    return tuple(answers)
                answers.append(answer)

    def dump(self, kind: int, payload: bytes, *, doing: str) -> list[Message]:
        """Every message of a dump, read again if it changed meanwhile. Raises :class:`NetlinkError`."""
        for _attempt in range(_DUMP_ATTEMPTS_MAX):
            messages, is_consistent = self._dump_once(kind, payload, doing)
            if is_consistent:
                return messages
        raise NetlinkError(errno.EINTR, doing, detail="it kept changing while it was read")

    def _dump_once(self, kind: int, payload: bytes, doing: str) -> tuple[list[Message], bool]:
        sequence = self.take_sequence()
        self.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, payload))
        messages: list[Message] = []
        is_consistent = True
        while True:
            for answer in parse_messages(self.receive()):
                if answer.sequence != sequence:
                    continue
                if answer.flags & NLM_F_DUMP_INTR:
                    is_consistent = False
                if answer.type in (NLMSG_DONE, NLMSG_ERROR):
                    number = parse_errno(answer)
                    if number == errno.EINTR:
                        return messages, False
                    if number:
                        raise NetlinkError(number, doing)
                    return messages, is_consistent
                messages.append(answer)


class NetlinkClient(_Closable):
    """What speaks one protocol of netlink, in the network namespace of the thread that makes it; see the socket."""

    def __init__(self, protocol: int) -> None:
        self._socket = NetlinkSocket(protocol)

    def close(self) -> None:
        """See :class:`_Closable`."""
        self._socket.close()
