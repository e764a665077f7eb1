"""Signs of life of devboxes, noted in memory and written down together: a request more must not cost a write more."""


class ActivityNotes:
    """When each devbox was active last, since the notes were taken. Belongs to the event loop's thread.

    Bounded by the devboxes that there are: only such are noted, and the sweeper takes the notes every second.
    """

    def __init__(self) -> None:
        self._times_ms: dict[str, int] = {}

    def note(self, devbox_id: str, now_ms: int) -> None:
        """The devbox is active now."""
        self._times_ms[devbox_id] = max(now_ms, self._times_ms.get(devbox_id, 0))

    def take(self) -> dict[str, int]:
        """The notes, which are empty then."""
        taken, self._times_ms = self._times_ms, {}
        return taken
