"""From which address the front asks the api, so that the api can tell the front's clients apart."""

import hashlib
import secrets
from typing import Any, Final

from outgate.core.clients import client_of

_KEY: Final = secrets.token_bytes(16)
"""Nobody can choose an address that stands for somebody else's."""
_HOST_BYTES: Final = 3
_LOWEST, _HIGHEST = 0x000100, 0xFFFFFE
"""127.0.1.0 to 127.255.255.254: local programs ask from 127.0.0.x."""


def find_source(api_host: str, peer: Any) -> tuple[str, int] | None:
    """The address to ask an api at ``api_host`` from, for the client ``peer`` (a socket's address).

    On IPv4 each client has one of sixteen million loopback addresses, always the same one of this process; the
    limits that the api sets to each client so mean the same clients. None for any: on IPv6 there is one loopback.
    """
    if ":" in api_host or not isinstance(peer, tuple):
        return None
    digest = hashlib.blake2b(client_of(peer[0]).encode(), key=_KEY, digest_size=_HOST_BYTES).digest()
    number = _LOWEST + int.from_bytes(digest, "big") % (_HIGHEST - _LOWEST + 1)
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0
