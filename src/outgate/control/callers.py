"""Who asks, and whose keys this process has seen before."""

from dataclasses import dataclass
from typing import Final

from outgate.model.scopes import Scopes

KNOWN_MAX: Final = 10_000
"""Keys remembered: a megabyte or two. When there are more, all are forgotten, and found again one by one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: whose account, by which key. ``scopes``: what a restricted key may do, else None."""

    account_id: str
    key_id: str
    scopes: Scopes | None = None


class KnownKeys:
    """Callers by the SHA-256 of their key. (Of digests, timing tells an attacker nothing that helps.)"""

    def __init__(self) -> None:
        self._callers: dict[bytes, Caller] = {}

    def find(self, digest: bytes) -> Caller | None:
        """The caller whose key has this digest, if it was seen before. Its key may be revoked by now."""
        return self._callers.get(digest)

    def add(self, digest: bytes, caller: Caller) -> None:
        """Remember a key that was just found valid."""
        if len(self._callers) >= KNOWN_MAX:
            self._callers.clear()
        self._callers[digest] = caller
