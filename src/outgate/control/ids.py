"""Ids: a prefix and 21 base-62 characters that sort in the order of creation."""

import re
import secrets
from enum import StrEnum
from threading import Lock
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 21
_RANDOM_BITS: Final = 77
"""48 bits of milliseconds and 77 of chance fill 21 base-62 characters (62^21 > 2^125)."""
_STEP_BITS: Final = 40
"""Ids of one millisecond follow each other by random steps: ordered, and still not to be guessed."""


class IdPrefix(StrEnum):
    """What an id names."""

    POLICY = "npol_"
    DEVBOX = "dbx_"
    EXECUTION = "exec_"
    ACCOUNT = "acct_"
    KEY = "key_"
    HOST = "host_"
    REQUEST = "req_"
    SNAPSHOT = "snp_"
    BLUEPRINT = "bpt_"
    OBJECT = "obj_"
    SECRET = "sec_"  # noqa: S105 - the prefix of an id
    GATEWAY_CONFIG = "gwc_"
    MCP_CONFIG = "mcp_"
    WEBHOOK = "whk_"
    DELIVERY = "msg_"


_SHAPES: Final = {prefix: re.compile(rf"{prefix}[0-9A-Za-z]{{{_LENGTH}}}\Z", re.ASCII) for prefix in IdPrefix}


def id_pattern(prefix: IdPrefix) -> str:
    """The regular expression of such ids, as JSON Schema writes it."""
    return f"^{prefix}[0-9A-Za-z]{{{_LENGTH}}}$"


def is_id(prefix: IdPrefix, text: str) -> bool:
    """Whether ``text`` has the shape of such an id (it may still name nothing)."""
    return _SHAPES[prefix].match(text) is not None


def derive_id(prefix: IdPrefix, digest: bytes) -> str:
    """The id that belongs to ``digest`` (at least 16 bytes): the same for the same digest, in no order."""
    return prefix + _encode(int.from_bytes(digest[:15], "big"))


class IdMaker:
    """Makes ids that grow, also within one millisecond and when the clock steps back."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = Lock()

    def make(self, prefix: IdPrefix, now_ms: int) -> str:
        """A new id."""
        with self._lock:
            value = (now_ms << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
            if value <= self._last or value >> _RANDOM_BITS == self._last >> _RANDOM_BITS:
                value = self._last + 1 + secrets.randbits(_STEP_BITS)
            self._last = value
        return prefix + _encode(value)


def _encode(value: int) -> str:
    digits = []
    for _ in range(_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
