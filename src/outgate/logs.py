"""Structured logs: one canonical line per decision, JSON for machines or text for a terminal, never a secret.

Every process calls :func:`configure_logs` once, first thing. Lines go to standard error: standard output
belongs to what a command prints.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from outgate.settings import LogFormat, LogLevel

_SECRET_KEYS: Final = frozenset({"api_key", "authorization", "database_url", "environment", "host_token", "token"})
"""Keys whose values never reach a log, whoever passes them. ``environment`` holds devboxes' own secrets."""
_HIDDEN: Final = "[hidden]"
_VALUE_LENGTH_MAX: Final = 2048
"""A devbox chooses names and command output; one line must not grow without bound because of it."""

Event = MutableMapping[str, Any]


def configure_logs(level: LogLevel, form: LogFormat, *, process: str) -> None:
    """Log at ``level`` and above in ``form`` from now on; each line names ``process`` (api, agent, gate …)."""
    is_terminal = form is LogFormat.CONSOLE
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if is_terminal
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
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
