"""Which sandboxes are being sealed just now: who wants to change or enter one waits, who ends one breaks it off."""

import asyncio
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class _Seal:
    stop: threading.Event = field(default_factory=threading.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Seals:
    """The seals under way. Belongs to the event loop's thread; only the event that is handed out is for another."""

    def __init__(self) -> None:
        self._seals: dict[str, _Seal] = {}

    def begin(self, devbox_id: str) -> threading.Event:
        """The sandbox is being sealed from now on. The event is set when that is to be broken off."""
        seal = self._seals[devbox_id] = _Seal()
        return seal.stop

    def end(self, devbox_id: str) -> None:
        """It is not any more."""
        self._seals.pop(devbox_id).over.set()

    def is_under_way(self, devbox_id: str) -> bool:
        """Whether the sandbox is being sealed."""
        return devbox_id in self._seals

    async def wait_until_over(self, devbox_id: str) -> None:
        """Returns when the sandbox is not being sealed."""
        while devbox_id in self._seals:
            await self._seals[devbox_id].over.wait()

    def break_off(self, devbox_id: str) -> None:
        """Have the seal that is under way, if any, fail soon."""
        seal = self._seals.get(devbox_id)
        if seal is not None:
            seal.stop.set()

    def break_off_all(self) -> None:
        """Do so with all seals."""
        for seal in self._seals.values():
            seal.stop.set()
