"""What a caller says about a devbox, and the values it means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from outgate.control.texts import parse_metadata, parse_short_text, parse_text
from outgate.errors import InvalidValueError

KEEP_ALIVE_S_DEFAULT: Final = 3600
KEEP_ALIVE_S_MAX: Final = 172_800
"""48 hours, as the hosted service has it."""
COMMANDS_MAX: Final = 100
COMMAND_LENGTH_MAX: Final = 131_072
"""Linux takes no single argument longer than this (MAX_ARG_STRLEN)."""
ENVIRONMENT_ENTRIES_MAX: Final = 1000
UID_MAX: Final = 65_533
"""65534 is nobody, 65535 is the invalid id on 16-bit interfaces."""
CPU_CORES_MAX: Final = 64.0
MEMORY_GIB_MAX: Final = 512
VARIABLE_PATTERN: Final = "^[A-Za-z_][A-Za-z0-9_]*$"
USERNAME_PATTERN: Final = "^[a-z_][a-z0-9_-]{0,31}$"
_VARIABLE: Final = re.compile(VARIABLE_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
_USERNAME: Final = re.compile(USERNAME_PATTERN.removesuffix("$") + r"\Z", re.ASCII)


class ResourceSize(StrEnum):
    """Sizes with names, as the hosted service has them."""

    X_SMALL = "X_SMALL"
    SMALL = "SMALL"
    MEDIUM = "MEDIUM"
    LARGE = "LARGE"
    X_LARGE = "X_LARGE"
    XX_LARGE = "XX_LARGE"
    CUSTOM_SIZE = "CUSTOM_SIZE"


@dataclass(frozen=True, slots=True)
class Resources:
    """How much of a host one devbox may use."""

    cpu_cores: float
    memory_mib: int


_RESOURCES: Final = {
    ResourceSize.X_SMALL: Resources(0.5, 1024),
    ResourceSize.SMALL: Resources(1.0, 2048),
    ResourceSize.MEDIUM: Resources(2.0, 4096),
    ResourceSize.LARGE: Resources(2.0, 8192),
    ResourceSize.X_LARGE: Resources(4.0, 16384),
    ResourceSize.XX_LARGE: Resources(8.0, 32768),
}


@dataclass(frozen=True, slots=True)
class UserInput:
    """Who runs commands in the devbox."""

    username: str
    uid: int


@dataclass(frozen=True, slots=True)
class LaunchInput:
    """``launch_parameters``. ``echo`` is what the view shows of them: all that was given, as it was given."""

    network_policy_id: str | None = None
    keep_alive_time_seconds: int | None = None
    launch_commands: tuple[str, ...] = ()
    user: UserInput | None = None
    size: ResourceSize = ResourceSize.SMALL
    custom_cpu_cores: float | None = None
    custom_gb_memory: int | None = None
    echo: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DevboxInput:
    """A create body, of the right types and not yet judged."""

    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    launch: LaunchInput = field(default_factory=LaunchInput)


@dataclass(frozen=True, slots=True)
class DevboxSpec:
    """The same, judged; what is left to look up is the policy."""

    name: str | None
    metadata: dict[str, str]
    environment: dict[str, str]
    entrypoint: str | None
    launch_commands: tuple[str, ...]
    user: UserInput
    resources: Resources
    keep_alive_s: int
    network_policy_id: str | None
    launch_parameters: dict[str, object]


def parse_devbox_input(given: DevboxInput) -> DevboxSpec:
    """``given`` as values. Raises InvalidValueError naming the field."""
    launch = given.launch
    keep_alive_s = _parse_keep_alive(launch.keep_alive_time_seconds)
    entrypoint = given.entrypoint
    return DevboxSpec(
        name=None if given.name is None else parse_short_text(given.name, field="name"),
        metadata=parse_metadata(given.metadata),
        environment=_parse_environment(given.environment),
        entrypoint=None if entrypoint is None else _parse_command(entrypoint, "entrypoint"),
        launch_commands=_parse_commands(launch.launch_commands),
        user=_parse_user(launch.user),
        resources=_parse_resources(launch),
        keep_alive_s=keep_alive_s,
        network_policy_id=launch.network_policy_id,
        launch_parameters={
            **launch.echo,
            "resource_size_request": launch.size.value,
            "keep_alive_time_seconds": keep_alive_s,
        },
    )


def _parse_keep_alive(seconds: int | None) -> int:
    if seconds is None:
        return KEEP_ALIVE_S_DEFAULT
    if not 1 <= seconds <= KEEP_ALIVE_S_MAX:
        message = f"{seconds} seconds is outside of 1 to {KEEP_ALIVE_S_MAX} (48 hours)."
        raise InvalidValueError(message, field="launch_parameters.keep_alive_time_seconds")
    return seconds


def _parse_environment(environment: Mapping[str, str]) -> dict[str, str]:
    field = "environment_variables"
    if len(environment) > ENVIRONMENT_ENTRIES_MAX:
        message = f"{field} has {len(environment)} entries; at most {ENVIRONMENT_ENTRIES_MAX} are allowed."
        raise InvalidValueError(message, field=field)
    for name, value in environment.items():
        if not _VARIABLE.match(name):
            message = f"{name[:80]!r} is no variable name; use letters, digits and '_', not beginning with a digit."
            raise InvalidValueError(message, field=field)
        parse_text(value, field=f"{field}[{name!r}]", length_max=COMMAND_LENGTH_MAX)
    return dict(environment)


def _parse_commands(commands: tuple[str, ...]) -> tuple[str, ...]:
    field = "launch_parameters.launch_commands"
    if len(commands) > COMMANDS_MAX:
        message = f"There are {len(commands)} launch commands; at most {COMMANDS_MAX} are allowed."
        raise InvalidValueError(message, field=field)
    return tuple(_parse_command(command, f"{field}[{index}]") for index, command in enumerate(commands))


def _parse_command(command: str, field: str) -> str:
    return parse_text(command, field=field, length_max=COMMAND_LENGTH_MAX)


def _parse_user(user: UserInput | None) -> UserInput:
    if user is None:
        return UserInput("user", 1000)
    if not _USERNAME.match(user.username):
        message = f"{user.username[:80]!r} is no user name; use up to 32 of a-z, 0-9, '_' and '-', as in 'user'."
        raise InvalidValueError(message, field="launch_parameters.user_parameters.username")
    if not 0 <= user.uid <= UID_MAX:
        message = f"uid {user.uid} is outside of 0 to {UID_MAX}."
        raise InvalidValueError(message, field="launch_parameters.user_parameters.uid")
    return user


def _parse_resources(launch: LaunchInput) -> Resources:
    if launch.size is not ResourceSize.CUSTOM_SIZE:
        return _RESOURCES[launch.size]
    small = _RESOURCES[ResourceSize.SMALL]
    cpu_cores = small.cpu_cores if launch.custom_cpu_cores is None else launch.custom_cpu_cores
    memory_mib = small.memory_mib if launch.custom_gb_memory is None else launch.custom_gb_memory * 1024
    if not 0 < cpu_cores <= CPU_CORES_MAX:
        message = f"{cpu_cores} cores is outside of 0 to {CPU_CORES_MAX:g}."
        raise InvalidValueError(message, field="launch_parameters.custom_cpu_cores")
    if not 0 < memory_mib <= MEMORY_GIB_MAX * 1024:
        message = f"{launch.custom_gb_memory} GiB is outside of 1 to {MEMORY_GIB_MAX}."
        raise InvalidValueError(message, field="launch_parameters.custom_gb_memory")
    return Resources(float(cpu_cores), memory_mib)
