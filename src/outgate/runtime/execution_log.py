"""A sandbox's log, read from what its executions left: commands, the lines they wrote, and their ends. Bounded."""

from collections.abc import Iterator
from typing import Final

from outgate.model.executions import LogLevel, LogLine, LogSource
from outgate.runtime.base import ExecState, ExecStatus, OutputStream
from outgate.runtime.execution_files import ExecutionAbout, ExecutionFiles
from outgate.runtime.output import read_last_lines

EXECUTIONS_MAX: Final = 100
"""The newest of a sandbox's; an older one is read by its id."""
LINES_OF_ONE: Final = 5000
LINES_OF_EACH: Final = 200
_BYTES_OF_ONE: Final = 1 << 20
_BYTES_OF_EACH: Final = 1 << 14
"""Of each stream. All streams of all executions together: some 3 MiB."""

_LEVELS: Final = {OutputStream.STDOUT: LogLevel.INFO, OutputStream.STDERR: LogLevel.ERROR}
_ENTRYPOINT_PREFIX: Final = "entrypoint-"
_CLIENTS_PREFIX: Final = "exec"


def source_of(execution_id: str) -> LogSource:
    """What an execution is for, told by its id: those of clients are ``exec_…``, the agent's own say what they are."""
    if execution_id.startswith(_ENTRYPOINT_PREFIX):
        return LogSource.ENTRYPOINT
    return LogSource.EXEC if execution_id.startswith(_CLIENTS_PREFIX) else LogSource.SETUP_COMMANDS


def read_log(files: ExecutionFiles, about: ExecutionAbout, state: ExecState, *, is_alone: bool) -> tuple[LogLine, ...]:
    """The entries of one execution. Blocks. ``is_alone``: nothing else is asked for, so there is room for more."""
    return tuple(_entries(files, about, state, is_alone=is_alone))


def _entries(files: ExecutionFiles, about: ExecutionAbout, state: ExecState, *, is_alone: bool) -> Iterator[LogLine]:
    source = source_of(state.execution_id)

    def line(level: LogLevel, time_ms: int, *, message: str | None = None, exit_code: int | None = None) -> LogLine:
        is_command = message is None and exit_code is None
        return LogLine(
            source=source,
            level=level,
            time_ms=time_ms,
            cmd_id=state.execution_id,
            message=message,
            cmd=about.command if is_command else None,
            exit_code=exit_code,
            shell_name=about.shell,
        )

    yield line(LogLevel.INFO, about.asked_ms)
    lines_max, bytes_max = (LINES_OF_ONE, _BYTES_OF_ONE) if is_alone else (LINES_OF_EACH, _BYTES_OF_EACH)
    last_ms = about.asked_ms
    for stream, level in _LEVELS.items():
        file = files.output(stream)
        # The host does not know when each line came: the last one came when the file was last written to.
        time_ms = file.stat().st_mtime_ns // 1_000_000 if file.exists() else about.asked_ms
        last_ms = max(last_ms, time_ms)
        for text in read_last_lines(file, lines_max, bytes_max).text.splitlines():
            yield line(level, time_ms, message=text)
    if state.status is ExecStatus.COMPLETED:
        yield line(LogLevel.INFO, last_ms, exit_code=state.exit_status)
