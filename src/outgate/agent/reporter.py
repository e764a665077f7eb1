"""Tells the api what is in force and where the devboxes are: at once when something changes, else now and then.

A report that did not arrive is not repeated as it was: the next one says everything.
"""

import asyncio
from typing import Final, Protocol

import structlog

from outgate.agent.health import Health, WarningCode
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.model.desired import DesiredState, HostCapacity, HostReport, HostWarning, ObservedDevbox

HEARTBEAT_S: Final = 15.0
"""How often the api hears of a host on which nothing happens."""
_POLL_WAIT_S: Final = 25.0
_RETRY_DELAYS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""The api is back soon, as its supervisor starts it again at once; later, twice a second would only be noise."""
_WARN_AFTER_FAILURES: Final = 5


class HostApi(Protocol):
    """The api, as a host sees it. Both raise PeerUnreachableError and PeerRefusedError."""

    async def fetch_desired_state(self, after: int, wait_s: float) -> DesiredState:
        """What changed after ``after``; waits up to ``wait_s`` for a change."""

    async def report(self, report: HostReport) -> None:
        """Hand in a report."""


class HostState(Protocol):
    """Whatever knows the host's whole state."""

    def enforced(self) -> int:
        """The desired-state revision in force."""

    def is_ready(self) -> bool:
        """Whether kernel and gate have their tables."""

    def devboxes(self) -> tuple[ObservedDevbox, ...]:
        """Every devbox that there is something to say about."""

    def warnings(self) -> tuple[HostWarning, ...]:
        """Every warning in force."""

    async def on_desired(self, news: DesiredState) -> None:
        """Take over what the api wants."""


def _delay_s(failures: int) -> float:
    return _RETRY_DELAYS_S[min(failures, len(_RETRY_DELAYS_S)) - 1]


class Reporter:
    """Both directions of the talk with the api. Belongs to the event loop's thread."""

    def __init__(
        self,
        api: HostApi,
        state: HostState,
        health: Health,
        *,
        boot_id: str,
        url: str,
        capacity: HostCapacity | None = None,
    ) -> None:
        self._api, self._state, self._health = api, state, health
        self._boot_id, self._url, self._capacity = boot_id, url, capacity
        self._log = structlog.get_logger("reporter")
        self._news = asyncio.Event()
        self._changed: dict[str, ObservedDevbox] = {}
        self._is_all_due = True

    def devbox_changed(self, devbox: ObservedDevbox) -> None:
        """A devbox reached another phase."""
        self._changed[devbox.id] = devbox
        self._news.set()

    def changed(self) -> None:
        """Something else that a report says has changed."""
        self._news.set()

    def full_report(self) -> HostReport:
        """Everything, as it is now."""
        return self._report(self._state.devboxes())

    def _report(self, devboxes: tuple[ObservedDevbox, ...]) -> HostReport:
        return HostReport(
            boot_id=self._boot_id,
            url=self._url,
            enforced=self._state.enforced(),
            ready=self._state.is_ready(),
            devboxes=devboxes,
            warnings=self._state.warnings(),
            capacity=self._capacity,
        )

    async def run_reports(self) -> None:
        """Report until cancelled."""
        failures = 0
        while True:
            await self._wait_for_news()
            self._news.clear()
            report = self.full_report() if self._is_all_due else self._report(tuple(self._changed.values()))
            self._changed = {}
            self._is_all_due = False
            try:
                await self._api.report(report)
            except (PeerUnreachableError, PeerRefusedError) as error:
                failures += 1
                self._is_all_due = True
                self._note_failure(failures, error.message)
                self._news.set()
                await asyncio.sleep(_delay_s(failures))
            else:
                failures = 0

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
        except TimeoutError:
            return

    async def run_polls(self) -> None:
        """Take over the desired state until cancelled. While the api is silent, what was wanted last stays in force."""
        after = failures = 0
        while True:
            try:
                news = await self._api.fetch_desired_state(after, _POLL_WAIT_S)
            except (PeerUnreachableError, PeerRefusedError) as error:
                failures += 1
                self._note_failure(failures, error.message)
                await asyncio.sleep(_delay_s(failures))
                continue
            if failures:
                failures = 0
                # It may be another process, which has heard nothing from this host yet.
                self._is_all_due = True
                self._news.set()
                self._health.clear(WarningCode.API_UNREACHABLE)
            after = news.revision
            await self._state.on_desired(news)

    def _note_failure(self, failures: int, message: str) -> None:
        self._log.info("api_failed", failures=failures, why=message)
        if failures >= _WARN_AFTER_FAILURES:
            text = f"The api does not answer ({message}); what was wanted last stays in force."
            self._health.raise_warning(WarningCode.API_UNREACHABLE, text)
