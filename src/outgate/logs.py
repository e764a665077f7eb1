"""Structured logs: one canonical line per decision, JSON for machines or text for a terminal, never a secret.

Every process calls :func:`configure_logs` once, first thing. Lines go to standard error: standard output
belongs to what a command prints.
"""

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

from outgate import clock
from outgate.settings import LogFormat, LogLevel

_SECRET_KEYS: Final = frozenset(
    {"api_key", "authorization", "database_url", "environment", "host_token", "metrics_token", "token"}
)
"""Keys whose values never reach a log, whoever passes them. ``environment`` holds devboxes' own secrets."""
_HIDDEN: Final = "[hidden]"
_VALUE_LENGTH_MAX: Final = 2048
"""A devbox chooses names and command output; one line must not grow without bound because of it."""

LINES_A_MINUTE_MAX: Final = 100
"""Of one kind and process: some 30 MB a day if somebody provokes it all the time."""
REQUESTS_A_MINUTE_MAX: Final = 6000
"""Lines of requests with a valid key: some 2 MB."""
_LINES_A_MINUTE: Final[Mapping[object, int]] = {"request": REQUESTS_A_MINUTE_MAX}
_MINUTE_S: Final = 60.0
_KINDS_MAX: Final = 1024
"""There are some hundred; the bound is for texts that somebody should not have used as a kind."""

Event = MutableMapping[str, Any]


def configure_logs(level: LogLevel, form: LogFormat, *, process: str) -> None:
    """Log at ``level`` and above in ``form`` from now on; each line names ``process`` (api, agent, gate …)."""
    is_terminal = form is LogFormat.CONSOLE
    renderer: structlog.typing.Processor = (
        # Its own choice of a traceback shows the values of local variables, and so keys and secrets.
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if is_terminal
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            LineLimit(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            *(() if is_terminal else (structlog.processors.format_exc_info,)),
            _name_process(process),
            hide_secrets,
            bound_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries (granian, httpx, sqlalchemy) log through the standard module; their chatter stays out.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s", force=True)
    limit = LineLimit()
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: limit.admit(record.name) is not None)


class LineLimit:
    """At most :data:`LINES_A_MINUTE_MAX` lines of one kind a minute (of requests more); what is left out is counted.

    Some lines are written because of what a devbox or a client does, and it does that as often as it likes. As a
    processor of structlog, its kind is the event; debugging shows everything.
    """

    def __init__(self, now_s: Callable[[], float] = clock.monotonic_s) -> None:
        self._now_s = now_s
        self._kinds: dict[object, tuple[float, int]] = {}
        """Kind → when its minute began, and its lines since."""

    def admit(self, kind: object) -> int | None:
        """None for a line that is left out; else how many of its kind were left out in the minute before."""
        now_s, lines_max = self._now_s(), _LINES_A_MINUTE.get(kind, LINES_A_MINUTE_MAX)
        began_s, lines = self._kinds.get(kind, (now_s, 0))
        left_out = 0
        if now_s - began_s >= _MINUTE_S:
            left_out = max(0, lines - lines_max)
            began_s, lines = now_s, 0
        if len(self._kinds) >= _KINDS_MAX and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = (began_s, lines + 1)
        return None if lines >= lines_max else left_out

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        """The event, with ``left_out`` where lines of its kind were. Raises structlog.DropEvent for one too many."""
        if method == "debug":
            return event
        left_out = self.admit(event.get("event"))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event


def _name_process(process: str) -> structlog.typing.Processor:
    def name(_logger: object, _method: str, event: Event) -> Event:
        event["process"] = process
        return event

    return name


def hide_secrets(_logger: object, _method: str, event: Event) -> Event:
    """The event with the values of secret keys replaced."""
    for key in event.keys() & _SECRET_KEYS:
        event[key] = _HIDDEN
    return event


def bound_values(_logger: object, _method: str, event: Event) -> Event:
    """The event with over-long texts cut; exceptions excepted, which are our own."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _VALUE_LENGTH_MAX and key != "exception":
            event[key] = value[:_VALUE_LENGTH_MAX] + "…"
    return event
