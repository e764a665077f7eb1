"""What use-cases tell a collector of telemetry, if the operator has one; how is the api's business."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Answered:
    """How a request ended. ``route`` is a template; ids are None of whoever showed no key."""

    method: str
    route: str
    status: int
    request_id: str
    account_id: str | None
    key_id: str | None


class RequestSpan(Protocol):
    """A request that is being answered."""

    def end(self, answered: Answered) -> None:
        """It was answered."""
        ...


class Telemetry(Protocol):
    """Takes what it is told, at once and without ever failing; what there is no room for is lost."""

    def request(self) -> AbstractContextManager[RequestSpan]:
        """A request is answered in the block."""
        ...

    def enforcing(self) -> AbstractContextManager[object]:
        """The block waits until a change is in force; a part of the request around it."""
        ...

    def decided(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records of the flow log were stored, each with the columns of its table."""
        ...

    def close(self) -> None:
        """Hand over what waits, within two seconds."""
        ...


class _NoSpan:
    def end(self, answered: Answered) -> None:
        """Nobody hears of it."""


class NoTelemetry:
    """There is no collector."""

    def request(self) -> AbstractContextManager[RequestSpan]:
        """Nothing is noted."""
        return nullcontext(_NoSpan())

    def enforcing(self) -> AbstractContextManager[object]:
        """Nothing is noted."""
        return nullcontext()

    def decided(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nobody hears of it."""

    def close(self) -> None:
        """There is nothing to do."""
