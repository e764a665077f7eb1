"""Set elements by hand-made nfnetlink: the way the data path changes while it runs.

A batch is one transaction: the kernel commits all of it inside ``send()`` or nothing. Adding one element
takes 12 to 18 µs whatever the ruleset holds, where libnftables first reads the whole ruleset
(measured: 1 ms at 1,000 chains). Elements alone are handled here; tables, chains and rules are
written by libnftables (:mod:`outgate.dataplane.nft`).

Re-adding an element that is there refreshes its timeout (kernels from 6.12 on) and changes
nothing else: to change its user data, delete and add it in one batch.
"""

import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from outgate.dataplane.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Message,
    NetlinkClient,
    NetlinkError,
    attribute,
    list_attributes,
    message,
    nest,
    parse_attributes,
    parse_errno,
    parse_messages,
    text,
    u64_net,
)

_NFNL_SUBSYS_NFTABLES: Final = 10
_NFNL_MSG_BATCH_BEGIN: Final = 0x10
_NFNL_MSG_BATCH_END: Final = 0x11
_NFPROTO_UNSPEC: Final = 0
_NFPROTO_INET: Final = 1
_NFT_MSG_NEWSETELEM: Final = 12
_NFT_MSG_GETSETELEM: Final = 13
_NFT_MSG_DELSETELEM: Final = 14
_NFT_JUMP: Final = -3

# linux/netfilter/nf_tables.h: nft_set_elem_list_attributes, nft_set_elem_attributes, nft_data_attributes.
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEMENT: Final = 1
_ELEM_KEY, _ELEM_DATA, _ELEM_TIMEOUT, _ELEM_EXPIRATION, _ELEM_USERDATA, _ELEM_KEY_END = 1, 2, 4, 5, 6, 10
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

USERDATA_BYTES_MAX: Final = 254
"""What the kernel keeps with an element. NFT_USERDATA_MAXLEN says 256, but with its header the length is counted in
eight bits: for 255 bytes the whole batch is refused with EINVAL, and of 256 nothing is kept (Linux 6.18, tried)."""
COMMENT_BYTES_MAX: Final = USERDATA_BYTES_MAX - 3
"""What a comment may hold: libnftnl writes type, length and a closing NUL around it."""
_UDATA_COMMENT: Final = 0
_MESSAGE_BYTES_MAX: Final = 48 << 10
"""Element lists are cut here: one attribute holds 64 KiB at most."""


@dataclass(frozen=True, slots=True)
class JumpTo:
    """The verdict of a verdict map's element: continue in the chain ``chain`` and come back."""

    chain: str


@dataclass(frozen=True, slots=True)
class Element:
    """One set or map element.

    ``key`` is what the ``key_*`` functions give, joined for concatenations; with ``key_end`` the
    element covers every key from ``key`` to ``key_end``, field by field. ``data`` is what a map holds:
    bytes (see :func:`mark`) or a verdict. ``timeout_ms`` None means the element stays.
    ``remaining_ms`` is set in dumps of elements with a timeout; when adding, it may name a first
    period other than the timeout. ``userdata`` travels with the element and means nothing to the
    kernel (see :func:`encode_comment`).
    """

    key: bytes
    key_end: bytes | None = None
    data: bytes | JumpTo | None = None
    timeout_ms: int | None = None
    remaining_ms: int | None = None
    userdata: bytes = b""


class IfPresent(Enum):
    """What adding means for an element that is there already."""

    REFRESH = NLM_F_CREATE
    """Its timeout starts again; otherwise nothing happens (different data is an error)."""
    REFUSE = NLM_F_CREATE | NLM_F_EXCL
    """The whole batch fails with EEXIST."""


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of a transaction: an nf_tables operation, its flags and its attributes."""

    operation: int
    flags: int
    body: bytes


def key_link(name: str) -> bytes:
    """Key part for an interface name (``ifname``): 16 bytes."""
    return name.encode("ascii").ljust(16, b"\0")


def key_address(address: str | ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """Key part for an address: 4 or 16 bytes."""
    return ipaddress.ip_address(address).packed


def key_protocol(number: int) -> bytes:
    """Key part for an IP protocol number (``inet_proto``), padded as concatenations want it."""
    return number.to_bytes(1, "big").ljust(4, b"\0")


def key_port(port: int) -> bytes:
    """Key part for a port (``inet_service``), padded as concatenations want it."""
    return port.to_bytes(2, "big").ljust(4, b"\0")


def mark(value: int) -> bytes:
    """Key part or map data for a mark: 32 bits in the machine's byte order."""
    return struct.pack("=I", value)


def encode_comment(comment: str) -> bytes:
    """``comment`` as the user data that ``nft list`` shows as the element's comment.

    At most :data:`COMMENT_BYTES_MAX` bytes of ASCII; raises ValueError for more.
    """
    data = comment.encode("ascii")
    if len(data) > COMMENT_BYTES_MAX:
        raise ValueError(f"a comment of {len(data)} bytes does not fit an element ({COMMENT_BYTES_MAX} at most)")
    return bytes((_UDATA_COMMENT, len(data) + 1)) + data + b"\0"


def decode_comment(userdata: bytes) -> str:
    """The comment in ``userdata``; empty when there is none."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _UDATA_COMMENT:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode("ascii", "replace")
        offset += 2 + length
    return ""


def add_elements(
    table: str, set_name: str, elements: Iterable[Element], if_present: IfPresent = IfPresent.REFRESH
) -> list[BatchMessage]:
    """Messages that put ``elements`` into a set or map of ``table`` (family inet)."""
    parts = (_encode_element(element) for element in elements)
    return _cut(_NFT_MSG_NEWSETELEM, if_present.value, table, set_name, parts)


def delete_elements(table: str, set_name: str, elements: Iterable[Element]) -> list[BatchMessage]:
    """Messages that take ``elements`` (only their keys matter) away; a missing one fails the batch (ENOENT)."""
    parts = (nest(_LIST_ELEMENT, *_encode_key(element)) for element in elements)
    return _cut(_NFT_MSG_DELSETELEM, 0, table, set_name, parts)


def flush_elements(table: str, set_name: str) -> list[BatchMessage]:
    """The message that empties a set or map."""
    return [BatchMessage(_NFT_MSG_DELSETELEM, 0, text(_LIST_TABLE, table) + text(_LIST_SET, set_name))]


def _cut(operation: int, flags: int, table: str, set_name: str, parts: Iterable[bytes]) -> list[BatchMessage]:
    head = text(_LIST_TABLE, table) + text(_LIST_SET, set_name)
    messages: list[BatchMessage] = []
    pending: list[bytes] = []
    size = 0
    for part in parts:
        if size + len(part) > _MESSAGE_BYTES_MAX:
            messages.append(BatchMessage(operation, flags, head + nest(_LIST_ELEMENTS, *pending)))
            pending, size = [], 0
        pending.append(part)
        size += len(part)
    if pending:
        messages.append(BatchMessage(operation, flags, head + nest(_LIST_ELEMENTS, *pending)))
    return messages


def _encode_key(element: Element) -> list[bytes]:
    parts = [nest(_ELEM_KEY, attribute(_DATA_VALUE, element.key))]
    if element.key_end is not None:
        parts.append(nest(_ELEM_KEY_END, attribute(_DATA_VALUE, element.key_end)))
    return parts


def _encode_element(element: Element) -> bytes:
    parts = _encode_key(element)
    match element.data:
        case bytes(value):
            parts.append(nest(_ELEM_DATA, attribute(_DATA_VALUE, value)))
        case JumpTo(chain):
            verdict = nest(
                _DATA_VERDICT, attribute(_VERDICT_CODE, struct.pack(">i", _NFT_JUMP)), text(_VERDICT_CHAIN, chain)
            )
            parts.append(nest(_ELEM_DATA, verdict))
        case None:
            pass
    if element.timeout_ms is not None:
        parts.append(u64_net(_ELEM_TIMEOUT, element.timeout_ms))
    if element.remaining_ms is not None:
        parts.append(u64_net(_ELEM_EXPIRATION, element.remaining_ms))
    if element.userdata:
        parts.append(attribute(_ELEM_USERDATA, element.userdata))
    return nest(_LIST_ELEMENT, *parts)


def parse_elements(payload: bytes) -> list[Element]:
    """The elements in one message of a set's dump. Raises :class:`NetlinkError` if it is malformed."""
    lists = parse_attributes(payload[4:])
    return [_parse_element(content) for _, content in list_attributes(lists.get(_LIST_ELEMENTS, b""))]


def _parse_element(content: bytes) -> Element:
    parts = parse_attributes(content)
    timeout = parts.get(_ELEM_TIMEOUT)
    remaining = parts.get(_ELEM_EXPIRATION)
    key_end = parts.get(_ELEM_KEY_END)
    return Element(
        key=parse_attributes(parts.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b""),
        key_end=None if key_end is None else parse_attributes(key_end).get(_DATA_VALUE, b""),
        data=_parse_data(parts.get(_ELEM_DATA)),
        timeout_ms=None if timeout is None else int.from_bytes(timeout, "big"),
        remaining_ms=None if remaining is None else int.from_bytes(remaining, "big"),
        userdata=parts.get(_ELEM_USERDATA, b""),
    )


def _parse_data(content: bytes | None) -> bytes | JumpTo | None:
    if content is None:
        return None
    data = parse_attributes(content)
    if _DATA_VERDICT not in data:
        return data.get(_DATA_VALUE)
    chain = parse_attributes(data[_DATA_VERDICT]).get(_VERDICT_CHAIN, b"")
    return JumpTo(chain.rstrip(b"\0").decode("ascii", "replace"))


class Nfnetlink(NetlinkClient):
    """A netfilter netlink socket in the network namespace the calling thread is in when it is made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def batch(self, messages: Sequence[BatchMessage]) -> None:
        """Commit ``messages`` as one transaction; when this returns, packets see the new state.

        Raises :class:`NetlinkError` when the kernel refused: then nothing of the batch is in force,
        and ``index`` says which message was to blame first. An empty batch does nothing.
        """
        if not messages:
            return  # the kernel acknowledges nothing then, and waiting for it would hang
        begin = self._socket.take_sequence(len(messages) + 2)
        last = begin + len(messages)
        self._socket.send(_encode_batch(messages, begin))
        refused: tuple[int, int] | None = None
        while True:
            for answer in parse_messages(self._socket.receive()):
                if answer.type != NLMSG_ERROR or not begin <= answer.sequence <= last:
                    continue
                number = parse_errno(answer)
                if number and refused is None:
                    refused = (number, answer.sequence - begin)
                if answer.sequence in (begin, last):
                    self._finish(refused)
                    return

    def _finish(self, refused: tuple[int, int] | None) -> None:
        if refused is None:
            return
        # Each refused message answers for itself; leave none of these answers to the next batch.
        while self._socket.receive_waiting() is not None:
            pass
        number, place = refused
        raise NetlinkError(number, "committing a transaction", index=place - 1 if place else None)

    def dump_elements(
        self, table: str, set_name: str, wanted: Callable[[bytes], bool] = lambda _payload: True
    ) -> list[Element]:
        """Every element of a set or map (family inet). Raises :class:`NetlinkError` (ENOENT: no such set).

        ``wanted`` looks at each raw message (some hundred elements) before it is parsed: a cheap first
        filter for big sets.
        """
        payload = text(_LIST_TABLE, table) + text(_LIST_SET, set_name)
        answers = self.dump(_NFT_MSG_GETSETELEM, payload, doing=f"reading set {set_name}")
        return [element for answer in answers if wanted(answer.payload) for element in parse_elements(answer.payload)]

    def dump(self, operation: int, attributes: bytes, *, doing: str, family: int = _NFPROTO_INET) -> list[Message]:
        """The messages of any nf_tables dump. Raises :class:`NetlinkError`."""
        payload = struct.pack(">BBH", family, 0, 0) + attributes
        return self._socket.dump(_NFNL_SUBSYS_NFTABLES << 8 | operation, payload, doing=doing)

    def query(self, operation: int, attributes: bytes, *, doing: str) -> tuple[Message, ...]:
        """The answer to an nf_tables request for one object (family inet). Raises :class:`NetlinkError`."""
        payload = struct.pack(">BBH", _NFPROTO_INET, 0, 0) + attributes
        return self._socket.query(_NFNL_SUBSYS_NFTABLES << 8 | operation, payload, doing=doing)


def _encode_batch(messages: Sequence[BatchMessage], begin: int) -> bytes:
    marker = struct.pack(">BBH", _NFPROTO_UNSPEC, 0, _NFNL_SUBSYS_NFTABLES)
    head = struct.pack(">BBH", _NFPROTO_INET, 0, 0)
    out = [message(_NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, begin, marker)]
    last = begin + len(messages)
    for sequence, item in enumerate(messages, begin + 1):
        flags = item.flags | NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0)
        out.append(message(_NFNL_SUBSYS_NFTABLES << 8 | item.operation, flags, sequence, head + item.body))
    out.append(message(_NFNL_MSG_BATCH_END, NLM_F_REQUEST, last + 1, marker))
    return b"".join(out)
