"""Pins as elements of the kernel's pin sets: what DNS taught one devbox, with a timeout, names in the comment.

The gate writes them, the driver carries them over when it replaces the table, and a restarted gate
reads them back. A comment holds the names as far as they fit; :data:`MORE_NAMES` at the end says that
some were left out (the reader then knows that it does not know all of them).
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from outgate.dataplane.nfnetlink import (
    COMMENT_BYTES_MAX,
    BatchMessage,
    Element,
    Nfnetlink,
    add_elements,
    decode_comment,
    delete_elements,
    encode_comment,
    key_address,
    key_link,
)
from outgate.model.addresses import IPAddress

TABLE: Final = "outgate"
"""Outgate's table (family inet) in the router namespace."""
PINS4: Final = "pins4"
"""``iifname . ip daddr`` of every pinned IPv4 address."""
PINS6: Final = "pins6"
MORE_NAMES: Final = "..."
TEXT_COMMENT_BYTES_MAX: Final = 128
"""nft's parser takes no longer comment (NFTNL_UDATA_COMMENT_MAXLEN), although the kernel keeps twice as much: a longer
one makes it refuse the whole transaction."""
_LINK_BYTES: Final = 16
_NAME: Final = re.compile(r"[a-z0-9._-]+")
"""What goes back into nft text must not be able to end a quoted string."""


@dataclass(frozen=True, slots=True)
class Pin:
    """``address`` was given to the devbox behind ``link`` for ``names``; forgotten after ``remaining_ms``.

    ``has_more_names`` is true when not all names fitted into the element.
    """

    link: str
    address: IPAddress
    remaining_ms: int
    names: tuple[str, ...] = ()
    has_more_names: bool = False


def add_pins(pins: Iterable[Pin]) -> list[BatchMessage]:
    """Messages that add the pins; of a pin that is there already only the timeout changes (it restarts)."""
    by_set: dict[str, list[Element]] = {PINS4: [], PINS6: []}
    for pin in pins:
        by_set[pin_set(pin.address)].append(encode_pin(pin))
    return [item for name, elements in by_set.items() for item in add_elements(TABLE, name, elements)]


def delete_pins(keys: Iterable[tuple[str, IPAddress]]) -> list[BatchMessage]:
    """Messages that delete the pins of (link, address); one that is gone already fails the batch with ENOENT."""
    by_set: dict[str, list[Element]] = {PINS4: [], PINS6: []}
    for link, address in keys:
        by_set[pin_set(address)].append(Element(key_link(link) + key_address(address)))
    return [item for name, elements in by_set.items() for item in delete_elements(TABLE, name, elements)]


def dump_pins(netfilter: Nfnetlink) -> list[Pin]:
    """Every pin in the kernel. Raises :class:`~outgate.dataplane.netlink.NetlinkError` (ENOENT: no table)."""
    return [decode_pin(element) for name in (PINS4, PINS6) for element in netfilter.dump_elements(TABLE, name)]


def pin_set(address: IPAddress) -> str:
    """The set that pins of this address's family live in."""
    return PINS4 if address.version == 4 else PINS6


def encode_pin(pin: Pin) -> Element:
    """The pin as a set element."""
    return Element(
        key=key_link(pin.link) + key_address(pin.address),
        timeout_ms=pin.remaining_ms,
        userdata=encode_comment(encode_names(pin.names, has_more=pin.has_more_names)),
    )


def decode_pin(element: Element) -> Pin:
    """The pin that a set element stands for."""
    names = [name for name in decode_comment(element.userdata).split(",") if _NAME.fullmatch(name)]
    link = element.key[:_LINK_BYTES].rstrip(b"\0").decode("ascii", "replace")
    return Pin(
        link=link,
        address=ipaddress.ip_address(element.key[_LINK_BYTES:]),
        remaining_ms=element.remaining_ms if element.remaining_ms is not None else (element.timeout_ms or 0),
        names=tuple(name for name in names if name != MORE_NAMES),
        has_more_names=MORE_NAMES in names,
    )


def encode_names(names: Sequence[str], *, has_more: bool, bytes_max: int = COMMENT_BYTES_MAX) -> str:
    """The names as an element's comment, cut to what fits into ``bytes_max``."""
    whole = ",".join((*names, MORE_NAMES) if has_more else names)
    if len(whole) <= bytes_max:
        return whole
    kept: list[str] = []
    room = bytes_max - len(MORE_NAMES)
    for name in names:
        if len(name) + 1 > room:
            break
        kept.append(name)
        room -= len(name) + 1
    return ",".join((*kept, MORE_NAMES))
