"""The only place that reads a clock. Everything else takes the time as an argument."""

import time


def wall_ms() -> int:
    """Unix time in whole milliseconds, as the API's ``*_time_ms`` fields carry it."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on a clock that never jumps; only differences mean anything."""
    return time.monotonic()
