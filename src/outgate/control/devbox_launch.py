"""``launch_parameters``: how a devbox starts, how large it is, how long it lives. Of devboxes and of blueprints.

They are kept as they were given, for the view and for the devboxes that a blueprint hands them on to; what they
mean is judged here, once they are complete.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from outgate.control.devbox_states import OnIdle
from outgate.control.texts import parse_text
from outgate.errors import InvalidValueError

LAUNCH_FIELD: Final = "launch_parameters"
KEEP_ALIVE_S_DEFAULT: Final = 3600
KEEP_ALIVE_S_MAX: Final = 172_800
"""48 hours, as the hosted service has it."""
IDLE_S_MAX: Final = 366 * 24 * 3600
SUSPEND_DEADLINE_MS_DEFAULT: Final = 30_000
SUSPEND_DEADLINE_MS_MAX: Final = 60_000
COMMANDS_MAX: Final = 100
COMMAND_LENGTH_MAX: Final = 131_072
"""Linux takes no single argument longer than this (MAX_ARG_STRLEN)."""
UID_MAX: Final = 65_533
"""65534 is nobody, 65535 is the invalid id on 16-bit interfaces."""
CPU_CORES_MAX: Final = 64.0
MEMORY_GIB_MAX: Final = 512
DISK_GIB_MAX: Final = 1024
PORT_MAX: Final = 65_535
USERNAME_PATTERN: Final = "^[a-z_][a-z0-9_-]{0,31}$"
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


class Architecture(StrEnum):
    """Processor architectures of the wire."""

    X86_64 = "x86_64"
    ARM64 = "arm64"


class ProvisioningTier(StrEnum):
    """Tiers of the wire. ``flex`` devboxes are queued until their host takes them up."""

    STANDARD = "standard"
    FLEX = "flex"


@dataclass(frozen=True, slots=True)
class Resources:
    """How much of a host one devbox may use."""

    cpu_cores: float
    memory_mib: int
    disk_gib: int


_RESOURCES: Final = {
    ResourceSize.X_SMALL: Resources(0.5, 1024, 4),
    ResourceSize.SMALL: Resources(1.0, 2048, 4),
    ResourceSize.MEDIUM: Resources(2.0, 4096, 8),
    ResourceSize.LARGE: Resources(2.0, 8192, 16),
    ResourceSize.X_LARGE: Resources(4.0, 16384, 16),
    ResourceSize.XX_LARGE: Resources(8.0, 32768, 16),
}
_CUSTOM: Final = ("custom_cpu_cores", "custom_gb_memory", "custom_disk_size")


@dataclass(frozen=True, slots=True)
class UserInput:
    """Who runs commands in the devbox."""

    username: str
    uid: int


@dataclass(frozen=True, slots=True)
class AfterIdle:
    """What happens once a devbox was idle for so long."""

    idle_s: int
    on_idle: OnIdle


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Launch parameters, judged. ``architecture`` None takes any; ``is_custom``: the size was given in numbers."""

    network_policy_id: str | None
    launch_commands: tuple[str, ...]
    suspend_commands: tuple[str, ...]
    suspend_deadline_ms: int
    user: UserInput
    resources: Resources
    is_custom: bool
    architecture: Architecture | None
    is_flex: bool
    keep_alive_s: int
    after_idle: AfterIdle | None
    view: dict[str, object]
    """What the devbox shows of them."""


class _AfterIdle(msgspec.Struct, frozen=True):
    idle_time_seconds: int
    on_idle: OnIdle


class _Hooks(msgspec.Struct, frozen=True):
    suspend_commands: tuple[str, ...] | None = None
    suspend_deadline_ms: int | None = None


class _Lifecycle(msgspec.Struct, frozen=True):
    after_idle: _AfterIdle | None = None
    lifecycle_hooks: _Hooks | None = None


class _User(msgspec.Struct, frozen=True):
    username: str
    uid: int


class _Launch(msgspec.Struct, frozen=True):
    """The fields that mean something here; the api has checked their types, and those of all others."""

    after_idle: _AfterIdle | None = None
    architecture: Architecture | None = None
    available_ports: tuple[int, ...] | None = None
    custom_cpu_cores: float | None = None
    custom_disk_size: int | None = None
    custom_gb_memory: int | None = None
    keep_alive_time_seconds: int | None = None
    launch_commands: tuple[str, ...] | None = None
    lifecycle: _Lifecycle | None = None
    network_policy_id: str | None = None
    provisioning_tier: ProvisioningTier | None = None
    required_services: tuple[str, ...] | None = None
    resource_size_request: ResourceSize | None = None
    user_parameters: _User | None = None


def merge_launch(own: Mapping[str, object], inherited: Mapping[str, object]) -> dict[str, object]:
    """``own``, and from ``inherited`` what ``own`` says nothing of. Fields that belong together come from one."""
    mine, rest = _given(own), _given(inherited)
    lifecycle, rest_lifecycle = _given(mine.pop("lifecycle", None)), _given(rest.pop("lifecycle", None))
    if "resource_size_request" in mine:
        for name in _CUSTOM:
            rest.pop(name, None)
    if "after_idle" in mine or "after_idle" in lifecycle:
        # It has two places; either of them takes the place of both.
        rest.pop("after_idle", None)
        rest_lifecycle.pop("after_idle", None)
    merged_lifecycle = {**rest_lifecycle, **lifecycle}
    return {**rest, **mine, **({"lifecycle": merged_lifecycle} if merged_lifecycle else {})}


def _given(fields: object) -> dict[str, object]:
    """The fields that say something; none where there is no object at all."""
    return {name: value for name, value in fields.items() if value is not None} if isinstance(fields, Mapping) else {}


def parse_launch(given: Mapping[str, object]) -> LaunchSpec:
    """``given``, complete and of the right types, as values. Raises InvalidValueError naming the field."""
    try:
        launch = msgspec.convert(given, _Launch, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidValueError(f"These launch parameters cannot be used: {error}.", field=LAUNCH_FIELD) from None
    keep_alive_s = _parse_keep_alive(launch.keep_alive_time_seconds)
    hooks = (launch.lifecycle.lifecycle_hooks if launch.lifecycle else None) or _Hooks()
    size = launch.resource_size_request or ResourceSize.SMALL
    _check_ports(launch.available_ports or ())
    if launch.required_services:
        message = "This server runs no containerized services beside a devbox; leave required_services out."
        raise InvalidValueError(message, field=f"{LAUNCH_FIELD}.required_services", code="not_served")
    return LaunchSpec(
        network_policy_id=launch.network_policy_id,
        launch_commands=_parse_commands(launch.launch_commands or (), "launch_commands"),
        suspend_commands=_parse_commands(hooks.suspend_commands or (), "lifecycle.lifecycle_hooks.suspend_commands"),
        suspend_deadline_ms=_parse_deadline(hooks.suspend_deadline_ms),
        user=_parse_user(launch.user_parameters),
        resources=_parse_resources(launch, size),
        is_custom=size is ResourceSize.CUSTOM_SIZE,
        architecture=launch.architecture,
        is_flex=launch.provisioning_tier is ProvisioningTier.FLEX,
        keep_alive_s=keep_alive_s,
        after_idle=_parse_after_idle(launch),
        view={**given, "resource_size_request": size.value, "keep_alive_time_seconds": keep_alive_s},
    )


def _refuse(name: str, message: str) -> InvalidValueError:
    return InvalidValueError(message, field=f"{LAUNCH_FIELD}.{name}")


def _parse_keep_alive(seconds: int | None) -> int:
    if seconds is None:
        return KEEP_ALIVE_S_DEFAULT
    if not 1 <= seconds <= KEEP_ALIVE_S_MAX:
        message = f"{seconds} seconds is outside of 1 to {KEEP_ALIVE_S_MAX} (48 hours)."
        raise _refuse("keep_alive_time_seconds", message)
    return seconds


def _parse_after_idle(launch: _Launch) -> AfterIdle | None:
    """From either of its two places. Clients promise that both say the same."""
    of_lifecycle = None if launch.lifecycle is None else launch.lifecycle.after_idle
    if launch.after_idle is not None and of_lifecycle is not None and launch.after_idle != of_lifecycle:
        message = "after_idle and lifecycle.after_idle say different things; give lifecycle.after_idle alone."
        raise _refuse("after_idle", message)
    name = "after_idle" if of_lifecycle is None else "lifecycle.after_idle"
    given = of_lifecycle or launch.after_idle
    if given is None:
        return None
    if not 1 <= given.idle_time_seconds <= IDLE_S_MAX:
        message = f"{given.idle_time_seconds} seconds is outside of 1 to {IDLE_S_MAX} (a year)."
        raise _refuse(f"{name}.idle_time_seconds", message)
    return AfterIdle(given.idle_time_seconds, given.on_idle)


def _parse_deadline(deadline_ms: int | None) -> int:
    if deadline_ms is None:
        return SUSPEND_DEADLINE_MS_DEFAULT
    if not 1 <= deadline_ms <= SUSPEND_DEADLINE_MS_MAX:
        message = f"{deadline_ms} ms is outside of 1 to {SUSPEND_DEADLINE_MS_MAX} (a minute)."
        raise _refuse("lifecycle.lifecycle_hooks.suspend_deadline_ms", message)
    return deadline_ms


def _parse_commands(commands: tuple[str, ...], name: str) -> tuple[str, ...]:
    if len(commands) > COMMANDS_MAX:
        raise _refuse(name, f"There are {len(commands)} commands; at most {COMMANDS_MAX} are allowed.")
    return tuple(
        parse_text(command, field=f"{LAUNCH_FIELD}.{name}[{index}]", length_max=COMMAND_LENGTH_MAX)
        for index, command in enumerate(commands)
    )


def _check_ports(ports: tuple[int, ...]) -> None:
    for index, port in enumerate(ports):
        if not 1 <= port <= PORT_MAX:
            raise _refuse(f"available_ports[{index}]", f"{port} is no port; ports are 1 to {PORT_MAX}.")


def _parse_user(user: _User | None) -> UserInput:
    if user is None:
        return UserInput("user", 1000)
    if not _USERNAME.match(user.username):
        message = f"{user.username[:80]!r} is no user name; use up to 32 of a-z, 0-9, '_' and '-', as in 'user'."
        raise _refuse("user_parameters.username", message)
    if not 0 <= user.uid <= UID_MAX:
        raise _refuse("user_parameters.uid", f"uid {user.uid} is outside of 0 to {UID_MAX}.")
    return UserInput(user.username, user.uid)


def _parse_resources(launch: _Launch, size: ResourceSize) -> Resources:
    if size is not ResourceSize.CUSTOM_SIZE:
        _refuse_custom(launch, size)
        return _RESOURCES[size]
    small = _RESOURCES[ResourceSize.SMALL]
    cpu_cores = _or_default(launch.custom_cpu_cores, small.cpu_cores)
    memory_gib = _or_default(launch.custom_gb_memory, small.memory_mib // 1024)
    disk_gib = _or_default(launch.custom_disk_size, small.disk_gib)
    if not 0 < cpu_cores <= CPU_CORES_MAX:
        raise _refuse("custom_cpu_cores", f"{cpu_cores} cores is outside of 0 to {CPU_CORES_MAX:g}.")
    if not 1 <= memory_gib <= MEMORY_GIB_MAX:
        raise _refuse("custom_gb_memory", f"{memory_gib} GiB is outside of 1 to {MEMORY_GIB_MAX}.")
    if not 1 <= disk_gib <= DISK_GIB_MAX:
        raise _refuse("custom_disk_size", f"{disk_gib} GiB is outside of 1 to {DISK_GIB_MAX}.")
    return Resources(float(cpu_cores), int(memory_gib) * 1024, int(disk_gib))


def _or_default(given: Any, default: Any) -> Any:
    # Any: whole numbers and fractions alike.
    return default if given is None else given


def _refuse_custom(launch: _Launch, size: ResourceSize) -> None:
    """Numbers beside a named size would have no effect."""
    for name in _CUSTOM:
        if getattr(launch, name) is not None:
            message = f"{name} counts only with resource_size_request CUSTOM_SIZE; here it is {size.value}."
            raise _refuse(name, message)
