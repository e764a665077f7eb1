"""One question under way to the upstream resolvers: its attempts, and how its answer is read."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from outgate.dataplane.dns_cache import Question
from outgate.dataplane.dns_lookup import AskCallback, UpstreamFailure
from outgate.wire.dns import RESPONSE_CODE_MASK, ResponseCode
from outgate.wire.dns_answer import Answer, RelayedAnswer, parse_answer, parse_relayed_answer
from outgate.wire.dns_query import render_query

ATTEMPT_TIMEOUTS_S: Final = (0.8, 1.2, 2.5)
"""Waiting time of each attempt. Their sum stays below the 5 s after which stub resolvers give up (resolv.conf(5))."""

_UNHELPFUL: Final = frozenset((ResponseCode.SERVFAIL, ResponseCode.REFUSED, ResponseCode.NOTIMP, ResponseCode.FORMERR))
"""Codes by which a resolver says that it cannot answer; another one may."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a resolver listens."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """Of the address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class Exchange:
    """A question, its callback, and how to give back what its attempts hold.

    ``attempt`` counts the attempts made by UDP; ``is_by_tcp`` is set once a truncated answer made it a question by
    TCP. After :meth:`finish` it is done and nothing can finish it again.
    """

    __slots__ = ("_callback", "_releases", "attempt", "is_by_tcp", "question", "refusal", "server")

    def __init__(self, question: Question, callback: AskCallback) -> None:
        self.question = question
        self.attempt = 0
        self.is_by_tcp = False
        self.server = 0
        self.refusal = ""
        self._callback: AskCallback | None = callback
        self._releases: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    @property
    def is_done(self) -> bool:
        """Whether its callback has been called."""
        return self._callback is None

    def hold(self, release: Callable[..., None], *arguments: object) -> None:
        """Have ``release`` called with ``arguments`` when the exchange is done."""
        self._releases.append((release, arguments))

    def finish(self, outcome: Answer | RelayedAnswer | UpstreamFailure) -> None:
        """Hand ``outcome`` over and give everything back. Only the first call does anything."""
        callback, self._callback = self._callback, None
        if callback is None:
            return
        for release, arguments in self._releases:
            release(*arguments)
        self._releases.clear()
        callback(outcome)


def render_exchange(question: Question, query_id: int) -> bytes:
    """The query that asks ``question``."""
    return render_query(
        query_id,
        question.wire_name,
        question.record_type,
        dnssec_ok=question.dnssec_ok,
        checking_disabled=question.checking_disabled,
    )


def parse_exchange(question: Question, query_id: int, message: bytes) -> Answer | RelayedAnswer:
    """What ``message`` answers to ``question``. Raises :class:`~outgate.wire.dns.DnsFormatError`."""
    parse = parse_relayed_answer if question.is_relayed else parse_answer
    return parse(message, query_id, question.wire_name, question.record_type)


def find_refusal(answer: Answer | RelayedAnswer) -> str:
    """The resolver's excuse when it did not answer; empty when it did (a name that does not exist is an answer)."""
    code = answer.flags & RESPONSE_CODE_MASK if isinstance(answer, RelayedAnswer) else answer.response_code
    if code not in _UNHELPFUL:
        return ""
    return f"the upstream resolver answered {ResponseCode(code).name}"
