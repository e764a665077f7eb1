"""Bodies of the blueprint routes, and what they mean to control."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.api.devbox_bodies import Secrets
from outgate.api.field_types import Command, DevboxName, Metadata, said
from outgate.api.launch_bodies import LaunchParameters
from outgate.api.mount_bodies import CodeMounts, FileMounts, to_mount_inputs
from outgate.control.blueprint_input import (
    BUILD_ARGS_LENGTH_MAX,
    BUILD_ARGS_MAX,
    DOCKERFILE_LENGTH_MAX,
    BlueprintInput,
)
from outgate.control.devbox_launch import COMMANDS_MAX
from outgate.control.ids import IdPrefix, id_pattern
from outgate.control.texts import NAME_LENGTH_MAX, NAME_PATTERN, TEXT_PATTERN
from outgate.control.variables import VARIABLE_PATTERN
from outgate.errors import InvalidValueError

BlueprintName = Annotated[str, said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
BuildArgs = Annotated[
    dict[str, str],
    said(
        maxProperties=BUILD_ARGS_MAX,
        propertyNames={"pattern": VARIABLE_PATTERN},
        additionalProperties={"type": "string", "maxLength": BUILD_ARGS_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]
_HIDDEN: Final = {"code_mounts": {"__all__": {"token"}}}
"""A git token is for one clone: nothing shows it again."""


class BuildContext(BaseModel):
    """The files that a Dockerfile's COPY and ADD find: a stored tgz archive."""

    model_config = BODY_CONFIG

    type: Literal["object"]
    object_id: Annotated[str, said(pattern=id_pattern(IdPrefix.OBJECT))]


class ServiceCredentials(BaseModel):
    """How the service's image would be pulled."""

    model_config = BODY_CONFIG

    username: str
    password: str


class Service(BaseModel):
    """A container beside the devbox. Refused, as this server runs none."""

    model_config = BODY_CONFIG

    name: str
    image: str
    credentials: ServiceCredentials | None = None
    env: dict[str, str] | None = None
    options: str | None = None
    port_mappings: list[str] | None = None


class BlueprintCreateParams(BaseModel):
    """A new blueprint: from a Dockerfile, upon another blueprint, or upon the stock image."""

    model_config = BODY_CONFIG

    name: BlueprintName
    dockerfile: Annotated[str, said(minLength=1, maxLength=DOCKERFILE_LENGTH_MAX, pattern=TEXT_PATTERN)] | None = None
    base_blueprint_id: Annotated[str, said(pattern=id_pattern(IdPrefix.BLUEPRINT))] | None = None
    base_blueprint_name: DevboxName | None = None
    build_args: BuildArgs | None = None
    build_context: BuildContext | None = None
    file_mounts: FileMounts | None = None
    code_mounts: CodeMounts | None = None
    system_setup_commands: Annotated[list[Command], said(maxItems=COMMANDS_MAX)] | None = None
    secrets: Secrets | None = None
    launch_parameters: LaunchParameters | None = None
    metadata: Metadata | None = None
    network_policy_id: str | None = None
    services: Annotated[list[Service], Field(json_schema_extra={"maxItems": 0})] | None = None

    def to_input(self) -> BlueprintInput:
        """The value control judges. Raises InvalidValueError for what this server cannot give a blueprint."""
        if self.services:
            message = (
                "This server runs no containers beside a devbox, so services would have no effect; leave them out."
            )
            raise InvalidValueError(message, field="services", code="not_served")
        return BlueprintInput(
            name=self.name,
            dockerfile=self.dockerfile,
            base_blueprint_id=self.base_blueprint_id,
            base_blueprint_name=self.base_blueprint_name,
            build_args=self.build_args or {},
            context_object_id=None if self.build_context is None else self.build_context.object_id,
            mounts=to_mount_inputs(None, self.file_mounts, self.code_mounts),
            setup_commands=tuple(self.system_setup_commands or ()),
            secrets=self.secrets or {},
            launch={} if self.launch_parameters is None else self.launch_parameters.to_launch(),
            metadata=self.metadata or {},
            network_policy_id=self.network_policy_id,
            parameters=self._echo(),
        )

    def _echo(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True, exclude=_HIDDEN)
