"""What api and agent say about executions and files beyond their start and state: documents and their words."""

from enum import StrEnum

import msgspec


class LogSource(StrEnum):
    """Where a line of a devbox's log comes from. The names are those of the API."""

    SETUP_COMMANDS = "setup_commands"
    ENTRYPOINT = "entrypoint"
    EXEC = "exec"


class LogLevel(StrEnum):
    """``info``: commands, their ends, standard output. ``error``: standard error."""

    INFO = "info"
    ERROR = "error"


class LogLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry: a command (``cmd``), a line that it wrote (``message``), or its end (``exit_code``)."""

    source: LogSource
    level: LogLevel
    time_ms: int
    cmd_id: str
    message: str | None = None
    cmd: str | None = None
    exit_code: int | None = None
    shell_name: str | None = None


class LogPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A devbox's log, oldest entry first."""

    lines: tuple[LogLine, ...]


class StdinSignal(StrEnum):
    """What is sent beside text."""

    EOF = "EOF"
    INTERRUPT = "INTERRUPT"


class StdinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Either is given. ``request_id`` makes the call repeatable: the same one is carried out once."""

    text: str | None = None
    signal: StdinSignal | None = None
    request_id: str | None = None


class StdinOutcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``is_delivered``: all of it is where the program reads. If not, ``detail`` says why."""

    is_delivered: bool
    detail: str = ""


class KillRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The command's own process, or all of its group."""

    is_group: bool = True


class FileProblem(StrEnum):
    """Why a file in a devbox cannot be read or written."""

    MISSING = "file_not_found"
    DIRECTORY = "is_a_directory"
    SPECIAL = "not_a_regular_file"
    DENIED = "file_not_permitted"
    FULL = "disk_full"
    STALLED = "file_stalled"
    FAILED = "file_failed"
