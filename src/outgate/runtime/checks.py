"""What the parts of a specification must look like before they reach a file, a command line or a sandbox."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from outgate.errors import InvalidValueError
from outgate.model.terminals import SIZE_MAX
from outgate.runtime.base import ExecSpec, SandboxSpec, SandboxUser, TerminalSpec
from outgate.runtime.usermap import IDS_PER_SANDBOX

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z", re.ASCII)
"""Ids become file names, names of control groups and arguments of commands; nothing else may."""
_USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z", re.ASCII)
"""As useradd(8) has it. The name becomes part of a path and a line of /etc/passwd."""
_HOSTNAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z", re.ASCII)
_CPU_CORES_MIN: Final = 0.01
"""The kernel refuses a quota below 1 ms in 100 ms (cpu.cfs_quota_us)."""
_MEMORY_MIB_MIN: Final = 16
"""Less does not hold the OCI runtime's own part of a start."""
_COMMAND_BYTES_MAX: Final = 128 * 1024 - 1
"""One argument of execve(2) holds 128 KiB with its end (MAX_ARG_STRLEN)."""

_PATH_BYTES_MAX: Final = 4096
"""PATH_MAX, which counts the end."""
_SHELL_LENGTH_MAX: Final = 256


def check_id(text: str) -> str:
    """``text`` if it can be the id of a sandbox or an execution. Raises :class:`InvalidValueError`."""
    if not _ID.match(text):
        raise InvalidValueError(f"{text[:120]!r} is not an id: letters, digits, '_', '.' and '-', at most 100 of them.")
    return text


def check_sandbox(spec: SandboxSpec) -> None:
    """Raises :class:`InvalidValueError` naming the field that cannot be used."""
    check_id(spec.devbox_id)
    _check_user(spec.user)
    _check_environment(spec.environment)
    if not _HOSTNAME.match(spec.hostname):
        raise InvalidValueError(f"{spec.hostname[:100]!r} is not a host name of one label.", field="hostname")
    for address in spec.nameservers:
        try:
            ip_address(address)
        except ValueError as error:
            raise InvalidValueError(f"{error}.", field="nameservers") from error
    for name, value, least in (
        ("cpu_cores", spec.cpu_cores, _CPU_CORES_MIN),
        ("memory_mib", spec.memory_mib, _MEMORY_MIB_MIN),
        ("pids_max", spec.pids_max, 8),
    ):
        if value < least:
            raise InvalidValueError(f"{name} is {value}; the least is {least}.", field=name)


def check_execution(spec: ExecSpec) -> None:
    """Raises :class:`InvalidValueError` naming the field that cannot be used."""
    check_id(spec.execution_id)
    _check_command(spec.command)
    if spec.shell is not None and not 0 < len(spec.shell) <= _SHELL_LENGTH_MAX:
        raise InvalidValueError(f"A shell's name has 1 to {_SHELL_LENGTH_MAX} characters.", field="shell_name")
    if spec.user is not None:
        _check_user(spec.user)


def check_terminal(spec: TerminalSpec) -> None:
    """Raises :class:`InvalidValueError` naming the field that cannot be used."""
    if spec.command is not None:
        _check_command(spec.command)
    _check_environment(spec.environment)
    size = spec.size
    if size is not None and not (1 <= size.cols <= SIZE_MAX and 1 <= size.rows <= SIZE_MAX):
        raise InvalidValueError(
            f"{size.cols} by {size.rows} is no terminal's size: 1 to {SIZE_MAX} each.", field="size"
        )


def _check_command(command: str) -> None:
    if "\0" in command:
        raise InvalidValueError("A command cannot hold a NUL.", field="command")
    if len(command.encode(errors="surrogateescape")) > _COMMAND_BYTES_MAX:
        raise InvalidValueError(
            f"The command is longer than {_COMMAND_BYTES_MAX} bytes; put it into a file first.", field="command"
        )


def check_file(path: str, user: SandboxUser | None) -> None:
    """Raises :class:`InvalidValueError` when ``path`` cannot be the name of a file."""
    if not path or "\0" in path:
        raise InvalidValueError("A path is not empty and holds no NUL.", field="path")
    if len(path.encode(errors="surrogateescape")) >= _PATH_BYTES_MAX:
        raise InvalidValueError(f"The path is longer than {_PATH_BYTES_MAX - 1} bytes.", field="path")
    if user is not None:
        _check_user(user)


def _check_user(user: SandboxUser) -> None:
    if not _USER_NAME.match(user.name):
        raise InvalidValueError(
            f"{user.name[:100]!r} is not a user name: lower-case letters, digits, '_' and '-', at most 32 of them.",
            field="username",
        )
    if not 0 <= user.uid < IDS_PER_SANDBOX:
        raise InvalidValueError(f"{user.uid} is not a user id from 0 to {IDS_PER_SANDBOX - 1}.", field="uid")


def _check_environment(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidValueError(
                f"{name[:100]!r} cannot be set: names are not empty and hold no '=', neither part holds a NUL.",
                field="environment_variables",
            )
