"""When a delivery is tried again, and when it is not: pure functions of what is known."""

from email.utils import parsedate_to_datetime
from typing import Final

FIRST_DELAY_MS: Final = 5_000
DELAY_FACTOR: Final = 3
DELAY_MS_MAX: Final = 2 * 3_600_000
"""5 s, 15 s, 45 s … 1 h, 2 h, 2 h …: some nineteen tries in a day; one that is back waits two hours at most."""
JITTER: Final = 0.25
"""Each delay is up to a quarter longer or shorter, so that what failed together is not tried again together."""
GIVE_UP_MS: Final = 24 * 3_600_000
RETRY_AFTER_MS_MAX: Final = 6 * 3_600_000
"""The longest that a receiver may ask us to wait."""
SWITCH_OFF_MS: Final = 3 * 24 * 3_600_000
SWITCH_OFF_FAILURES: Final = 20
"""A webhook is switched off after three days without a success, and no fewer failed tries than this."""
_GONE: Final = 410


def plan_retry(
    tries: int, *, create_time_ms: int, now_ms: int, chance: float, retry_after_ms: int | None
) -> int | None:
    """When to try again what failed ``tries`` (1 and more) times, as Unix milliseconds; None: give up.

    ``chance`` is from 0 up to 1. What the receiver asked for counts where it is later, within bounds.
    """
    steps = min(tries - 1, 32)
    delay_ms = min(FIRST_DELAY_MS * DELAY_FACTOR**steps, DELAY_MS_MAX)
    delay_ms = round(delay_ms * (1 - JITTER + 2 * JITTER * chance))
    if retry_after_ms is not None:
        delay_ms = max(delay_ms, min(retry_after_ms, RETRY_AFTER_MS_MAX))
    next_ms = now_ms + delay_ms
    return None if next_ms > create_time_ms + GIVE_UP_MS else next_ms


def parse_retry_after(text: str | None, *, now_ms: int) -> int | None:
    """Milliseconds that a ``Retry-After`` asks to wait (RFC 9110 §10.2.3); None when it says nothing."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # More digits than any bound needs.
        return int(text[:12]) * 1000
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0, int(moment.timestamp() * 1000) - now_ms)


def is_over(*, failing_since_ms: int, failures: int, status: int | None, now_ms: int) -> bool:
    """Whether a webhook is to be switched off, now that a try failed: for 410, and for failing for days."""
    if status == _GONE:
        return True
    return failures >= SWITCH_OFF_FAILURES and now_ms - failing_since_ms >= SWITCH_OFF_MS
