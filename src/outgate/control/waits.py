"""A bound on long polls, so that one account cannot take all of the server's open requests."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from outgate.control.errors import TooManyWaitsError


class WaitLimit:
    """Counts the open waits of each account. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, account_id: str, waits_max: int) -> Iterator[None]:
        """Count one wait for the length of the block. Raises TooManyWaitsError at the bound."""
        if self._open[account_id] >= waits_max:
            raise TooManyWaitsError(f"The account already has {waits_max} waiting requests; let one of them end first.")
        self._open[account_id] += 1
        try:
            yield
        finally:
            self._open[account_id] -= 1
            if not self._open[account_id]:
                del self._open[account_id]
