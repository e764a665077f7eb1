"""Answers by question, for as long as their TTL says, within bounds of number and memory."""

from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec

from outgate.wire.dns_answer import Answer, RelayedAnswer

ENTRIES_MAX: Final = 32_768
"""Some 200 bytes each for addresses; far more names than a host's devboxes use at a time."""
BYTES_MAX: Final = 64 << 20
"""Relayed answers can have 64 KiB each: their bodies are what this bounds."""
_ENTRY_BYTES: Final = 256
"""What an entry costs besides the bytes of its answer."""


class Question(NamedTuple):
    """What goes upstream, and the key of its answer.

    ``is_relayed``: the whole answer is wanted, for a policy that allows everything; else only addresses.
    """

    wire_name: bytes
    record_type: int
    is_relayed: bool = False
    dnssec_ok: bool = False
    checking_disabled: bool = False


class StoredAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer and the time (monotonic seconds) in which it holds."""

    answer: Answer | RelayedAnswer
    since_s: float
    until_s: float


class DnsCache:
    """The newest answers; the oldest go when there is no more room."""

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        # A plain dict would search ever longer for its oldest entry.
        self._entries: OrderedDict[Question, StoredAnswer] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, question: Question, now_s: float) -> StoredAnswer | None:
        """The answer to ``question`` that holds at ``now_s``, or None."""
        stored = self._entries.get(question)
        if stored is None:
            return None
        if stored.until_s <= now_s:
            self._drop(question)
            return None
        return stored

    def store(self, question: Question, stored: StoredAnswer) -> None:
        """Keep an answer in place of any older one to the same question."""
        self._drop(question)
        self._entries[question] = stored
        self._bytes += _size(question, stored)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def _drop(self, question: Question) -> None:
        stored = self._entries.pop(question, None)
        if stored is not None:
            self._bytes -= _size(question, stored)


def _size(question: Question, stored: StoredAnswer) -> int:
    answer = stored.answer
    if isinstance(answer, RelayedAnswer):
        return _ENTRY_BYTES + len(question.wire_name) + len(answer.body) + 8 * len(answer.ttl_offsets)
    return _ENTRY_BYTES + len(question.wire_name) + 48 * len(answer.addresses)
