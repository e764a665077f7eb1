"""What a caller says about a blueprint, and the values it means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from outgate.control.devbox_launch import COMMAND_LENGTH_MAX, COMMANDS_MAX, LaunchSpec, parse_launch
from outgate.control.devbox_mounts import MountInput
from outgate.control.texts import parse_metadata, parse_name, parse_text
from outgate.control.variables import parse_variable
from outgate.errors import InvalidValueError

DOCKERFILE_LENGTH_MAX: Final = 512 * 1024
BUILD_ARGS_MAX: Final = 100
BUILD_ARGS_LENGTH_MAX: Final = 64 * 1024
"""All of them together: they become arguments of one command, of which the kernel takes 2 MiB."""


@dataclass(frozen=True, slots=True)
class BlueprintInput:
    """A create body, of the right types and not yet judged. ``parameters`` is the body as the view echoes it."""

    name: str
    dockerfile: str | None = None
    base_blueprint_id: str | None = None
    base_blueprint_name: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    context_object_id: str | None = None
    mounts: tuple[MountInput, ...] = ()
    setup_commands: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    launch: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    network_policy_id: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlueprintSpec:
    """Those parts of it that can be judged by themselves."""

    name: str
    metadata: dict[str, str]
    launch: LaunchSpec


def parse_blueprint_input(given: BlueprintInput) -> BlueprintSpec:
    """``given`` as values. Raises InvalidValueError naming the field."""
    _check_base(given)
    if given.dockerfile is not None:
        _check_dockerfile(given.dockerfile)
    else:
        _check_nothing_unread(given)
    _check_build_args(given.build_args)
    for variable in given.secrets:
        parse_variable(variable, field="secrets")
    if len(given.setup_commands) > COMMANDS_MAX:
        message = f"There are {len(given.setup_commands)} setup commands; at most {COMMANDS_MAX} are allowed."
        raise InvalidValueError(message, field="system_setup_commands")
    for index, command in enumerate(given.setup_commands):
        parse_text(command, field=f"system_setup_commands[{index}]", length_max=COMMAND_LENGTH_MAX)
    return BlueprintSpec(parse_name(given.name), parse_metadata(given.metadata), parse_launch(given.launch))


def _check_base(given: BlueprintInput) -> None:
    names = ("base_blueprint_id", "base_blueprint_name", "dockerfile")
    both = [name for name in names if getattr(given, name) is not None]
    if len(both) > 1:
        message = f"{both[0]} and {both[1]} name different things to build upon; give one of them."
        raise InvalidValueError(message, field=both[1])


def _check_dockerfile(dockerfile: str) -> None:
    parse_text(dockerfile, field="dockerfile", length_max=DOCKERFILE_LENGTH_MAX)
    if not dockerfile.strip():
        raise InvalidValueError("The Dockerfile is empty; leave it out, or begin it with FROM.", field="dockerfile")


def _check_nothing_unread(given: BlueprintInput) -> None:
    for name, value in (("build_args", given.build_args), ("build_context", given.context_object_id)):
        if value:
            message = f"Only a Dockerfile reads {name}; give a dockerfile, or leave {name} out."
            raise InvalidValueError(message, field=name)


def _check_build_args(build_args: Mapping[str, str]) -> None:
    if len(build_args) > BUILD_ARGS_MAX:
        message = f"build_args has {len(build_args)} entries; at most {BUILD_ARGS_MAX} are allowed."
        raise InvalidValueError(message, field="build_args")
    for name, value in build_args.items():
        parse_variable(name, field="build_args")
        parse_text(value, field=f"build_args.{name}", length_max=BUILD_ARGS_LENGTH_MAX)
    if sum(len(name) + len(value) for name, value in build_args.items()) > BUILD_ARGS_LENGTH_MAX:
        message = f"build_args are longer than {BUILD_ARGS_LENGTH_MAX} characters together; put them into a file."
        raise InvalidValueError(message, field="build_args")
