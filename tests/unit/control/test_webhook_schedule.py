"""When deliveries are tried again: pure functions."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.control.webhook_schedule import (
    DELAY_MS_MAX,
    GIVE_UP_MS,
    JITTER,
    RETRY_AFTER_MS_MAX,
    SWITCH_OFF_FAILURES,
    SWITCH_OFF_MS,
    is_over,
    parse_retry_after,
    plan_retry,
)

NOW_MS = 1_800_000_000_000
CHANCES = st.floats(0, 1, exclude_max=True)


def run_schedule(chance: float) -> list[int]:
    """The times of the tries of a delivery that always fails at once, in milliseconds since it was made."""
    times, now_ms = [0], NOW_MS
    while True:
        next_ms = plan_retry(len(times), create_time_ms=NOW_MS, now_ms=now_ms, chance=chance, retry_after_ms=None)
        if next_ms is None:
            return times
        now_ms = next_ms
        times.append(next_ms - NOW_MS)


def test_the_schedule_of_a_receiver_that_is_down() -> None:
    """Half a chance is no jitter. docs/webhooks.md has these numbers."""
    times_s = [time_ms // 1000 for time_ms in run_schedule(0.5)]
    assert times_s[:9] == [0, 5, 20, 65, 200, 605, 1820, 5465, 12665]
    assert len(times_s) == 19


@given(CHANCES)
def test_whatever_the_chance_it_ends_within_a_day_and_not_much_earlier(chance: float) -> None:
    times = run_schedule(chance)
    assert times == sorted(times)
    assert GIVE_UP_MS - DELAY_MS_MAX * (1 + JITTER) <= times[-1] <= GIVE_UP_MS
    assert 14 <= len(times) <= 24


@given(st.integers(1, 10_000), CHANCES, st.none() | st.integers(0, 10**15))
def test_a_delay_is_within_its_bounds(tries: int, chance: float, retry_after_ms: int | None) -> None:
    next_ms = plan_retry(tries, create_time_ms=NOW_MS, now_ms=NOW_MS, chance=chance, retry_after_ms=retry_after_ms)
    assert next_ms is not None
    asked_ms = min(retry_after_ms or 0, RETRY_AFTER_MS_MAX)
    assert asked_ms <= next_ms - NOW_MS <= max(DELAY_MS_MAX * (1 + JITTER), asked_ms)
    assert next_ms - NOW_MS >= 3750


def test_what_a_receiver_asks_for_counts_where_it_is_later() -> None:
    def delay(retry_after_ms: int) -> int | None:
        return plan_retry(1, create_time_ms=NOW_MS, now_ms=NOW_MS, chance=0.5, retry_after_ms=retry_after_ms)

    assert delay(1000) == NOW_MS + 5000
    assert delay(60_000) == NOW_MS + 60_000
    assert delay(10**12) == NOW_MS + RETRY_AFTER_MS_MAX


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("120", 120_000),
        (" 120 ", 120_000),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u0661", None),
        ("9" * 400, 999_999_999_999_000),
        (email.utils.formatdate(NOW_MS / 1000 + 90, usegmt=True), 90_000),
        (email.utils.formatdate(NOW_MS / 1000 - 90, usegmt=True), 0),
        ("Fri, 99 Foo 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, expected: int | None) -> None:
    assert parse_retry_after(text, now_ms=NOW_MS) == expected


@given(st.text())
def test_any_retry_after_is_borne(text: str) -> None:
    found = parse_retry_after(text, now_ms=NOW_MS)
    assert found is None or found >= 0


def test_a_webhook_is_over_when_its_receiver_says_so_or_after_days_and_many_tries() -> None:
    def over(failing_ms: int, failures: int, status: int | None = 500) -> bool:
        return is_over(failing_since_ms=NOW_MS - failing_ms, failures=failures, status=status, now_ms=NOW_MS)

    assert over(0, 1, 410)
    assert not over(0, 1, 404)
    assert not over(SWITCH_OFF_MS - 1, SWITCH_OFF_FAILURES)
    assert not over(SWITCH_OFF_MS, SWITCH_OFF_FAILURES - 1)
    assert over(SWITCH_OFF_MS, SWITCH_OFF_FAILURES)
    assert over(SWITCH_OFF_MS, SWITCH_OFF_FAILURES, None)
