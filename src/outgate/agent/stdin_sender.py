"""What is typed into executions: each text whole, in the order in which it came, and once however often it is sent."""

import asyncio
from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary

from outgate.model.executions import StdinOutcome, StdinRequest, StdinSignal
from outgate.runtime.base import Runtime, StdinUnreadError

WRITE_S_MAX: Final = 20.0
"""A program that reads nothing for so long does not read; the client's own patience ends at 30 s."""
_REMEMBERED_MAX: Final = 10_000
"""Outcomes, of some 200 bytes each: clients repeat a call within a minute, or not at all."""


class StdinSender:
    """Sends to the executions of one host. Belongs to the event loop's thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._outcomes: OrderedDict[tuple[str, str, str], StdinOutcome] = OrderedDict()

    async def send(self, devbox_id: str, execution_id: str, request: StdinRequest) -> StdinOutcome:
        """See :meth:`outgate.agent.executions.Executions.send_stdin`."""
        turn = self._turns.setdefault((devbox_id, execution_id), asyncio.Lock())
        async with turn:
            key = (devbox_id, execution_id, request.request_id or "")
            known = self._outcomes.get(key) if request.request_id else None
            if known is not None:
                return known
            outcome = await self._deliver(devbox_id, execution_id, request)
            if request.request_id and outcome.is_delivered:
                self._outcomes[key] = outcome
                if len(self._outcomes) > _REMEMBERED_MAX:
                    self._outcomes.popitem(last=False)
            return outcome

    async def _deliver(self, devbox_id: str, execution_id: str, request: StdinRequest) -> StdinOutcome:
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                if request.text is not None:
                    data = request.text.encode("utf-8", "surrogatepass")
                    await self._runtime.exec_write_stdin(devbox_id, execution_id, data)
                if request.signal is StdinSignal.EOF:
                    await self._runtime.exec_close_stdin(devbox_id, execution_id)
                elif request.signal is StdinSignal.INTERRUPT:
                    await self._runtime.exec_interrupt(devbox_id, execution_id)
        except StdinUnreadError as error:
            return StdinOutcome(is_delivered=False, detail=error.message)
        except TimeoutError:
            detail = f"The program read nothing for {WRITE_S_MAX:g} s; it may still read a part of this."
            return StdinOutcome(is_delivered=False, detail=detail)
        return StdinOutcome(is_delivered=True)
