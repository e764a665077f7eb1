"""One request that changes something: who asks, when, and which call it repeats if it is sent twice."""

from dataclasses import dataclass

from outgate.control.callers import Caller
from outgate.control.repeats import RequestKey


@dataclass(frozen=True, slots=True)
class Call:
    """``request`` is None when the client gave no ``x-request-id``; ``now_ms`` is Unix time."""

    caller: Caller
    now_ms: int
    request: RequestKey | None = None

    @property
    def account_id(self) -> str:
        """Whose things are changed."""
        return self.caller.account_id

    @property
    def key_id(self) -> str:
        """By which key, for the history."""
        return self.caller.key_id
