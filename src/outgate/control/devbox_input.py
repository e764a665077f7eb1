"""What a caller says about a new devbox, and the values it means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from outgate.control.devbox_launch import COMMAND_LENGTH_MAX
from outgate.control.devbox_mounts import MountInput
from outgate.control.texts import parse_metadata, parse_short_text, parse_text
from outgate.control.tunnel_input import TunnelInput
from outgate.control.variables import parse_variable
from outgate.errors import InvalidValueError

ENVIRONMENT_ENTRIES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """What the devbox starts from: at most one is set, none means the stock image."""

    blueprint_id: str | None = None
    blueprint_name: str | None = None
    snapshot_id: str | None = None


@dataclass(frozen=True, slots=True)
class DevboxInput:
    """A create body, of the right types and not yet judged. ``launch`` is shown as it was given."""

    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    launch: Mapping[str, object] = field(default_factory=dict)
    mounts: tuple[MountInput, ...] = ()
    origin: Origin = Origin()
    tunnel: TunnelInput | None = None


@dataclass(frozen=True, slots=True)
class DevboxSpec:
    """Those parts of it that can be judged by themselves."""

    name: str | None
    metadata: dict[str, str]
    environment: dict[str, str]
    entrypoint: str | None


def parse_devbox_input(given: DevboxInput) -> DevboxSpec:
    """``given`` as values. Raises InvalidValueError naming the field."""
    _check_origin(given.origin)
    entrypoint = given.entrypoint
    if entrypoint is not None:
        parse_text(entrypoint, field="entrypoint", length_max=COMMAND_LENGTH_MAX)
    both = sorted(given.environment.keys() & given.secrets.keys())
    if both:
        message = f"{both[0]} is among environment_variables and among secrets; leave one of them out."
        raise InvalidValueError(message, field=f"secrets.{both[0]}")
    return DevboxSpec(
        name=None if given.name is None else parse_short_text(given.name, field="name"),
        metadata=parse_metadata(given.metadata),
        environment=parse_environment(given.environment),
        entrypoint=entrypoint,
    )


def _check_origin(origin: Origin) -> None:
    names = ("blueprint_id", "blueprint_name", "snapshot_id")
    given = [name for name in names if getattr(origin, name) is not None]
    if len(given) > 1:
        message = f"{' and '.join(given)} name different things to start from; give one of them."
        raise InvalidValueError(message, field=given[1])


def parse_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of a devbox. Raises InvalidValueError."""
    field = "environment_variables"
    if len(environment) > ENVIRONMENT_ENTRIES_MAX:
        message = f"{field} has {len(environment)} entries; at most {ENVIRONMENT_ENTRIES_MAX} are allowed."
        raise InvalidValueError(message, field=field)
    for name, value in environment.items():
        parse_variable(name, field=field)
        parse_text(value, field=f"{field}[{name!r}]", length_max=COMMAND_LENGTH_MAX)
    return dict(environment)
