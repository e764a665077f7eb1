"""Bodies of the devbox routes, and what they mean to control."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from outgate.api.bodies import BODY_CONFIG, Whole, as_whole
from outgate.control.devbox_input import (
    COMMAND_LENGTH_MAX,
    COMMANDS_MAX,
    CPU_CORES_MAX,
    ENVIRONMENT_ENTRIES_MAX,
    KEEP_ALIVE_S_MAX,
    MEMORY_GIB_MAX,
    UID_MAX,
    USERNAME_PATTERN,
    VARIABLE_PATTERN,
    DevboxInput,
    LaunchInput,
    ResourceSize,
    UserInput,
)
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import DevboxDescription
from outgate.control.texts import (
    METADATA_ENTRIES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_VALUE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    NAME_PATTERN,
    TEXT_PATTERN,
)
from outgate.errors import InvalidValueError

WAIT_S_DEFAULT: Final = 10.0
WAIT_S_MAX: Final = 30.0


# The constraints below are for the OpenAPI document only: control judges, with better words.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


DevboxName = Annotated[str, _said(maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Command = Annotated[str, _said(maxLength=COMMAND_LENGTH_MAX, pattern=TEXT_PATTERN)]
Metadata = Annotated[
    dict[str, str],
    _said(
        maxProperties=METADATA_ENTRIES_MAX,
        propertyNames={"maxLength": METADATA_KEY_LENGTH_MAX, "pattern": TEXT_PATTERN},
        additionalProperties={"type": "string", "maxLength": METADATA_VALUE_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]
Environment = Annotated[
    dict[str, str],
    _said(
        maxProperties=ENVIRONMENT_ENTRIES_MAX,
        propertyNames={"pattern": VARIABLE_PATTERN},
        additionalProperties={"type": "string", "maxLength": COMMAND_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]

_NOT_SERVED: Final = (
    "blueprint_id",
    "blueprint_name",
    "code_mounts",
    "file_mounts",
    "gateways",
    "mcp",
    "mounts",
    "secrets",
    "snapshot_id",
    "tunnel",
)
"""Fields of the wire that this server cannot honour: refused, since a devbox without them is not what was asked for."""


class UserParameters(BaseModel):
    """Who runs commands in the devbox; ``root`` with uid 0 is allowed."""

    model_config = BODY_CONFIG

    username: Annotated[str, _said(pattern=USERNAME_PATTERN)]
    uid: Annotated[Whole, _said(minimum=0, maximum=UID_MAX)]


# The bounds come before the validator: behind it, they would not reach the OpenAPI document.
Count = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(as_whole)]


class OnIdle(StrEnum):
    """What becomes of an idle devbox."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"


class AfterIdle(BaseModel):
    """Shown again as it was given."""

    model_config = BODY_CONFIG

    idle_time_seconds: Count
    on_idle: OnIdle


class LifecycleHooks(BaseModel):
    """Shown again as it was given."""

    model_config = BODY_CONFIG

    suspend_commands: Annotated[list[Command], Field(max_length=COMMANDS_MAX)] | None = None
    suspend_deadline_ms: Count | None = None


class ResumeTriggers(BaseModel):
    """Shown again as it was given."""

    model_config = BODY_CONFIG

    axon_event: bool | None = None
    http: bool | None = None


class LifecycleConfiguration(BaseModel):
    """Shown again as it was given."""

    model_config = BODY_CONFIG

    after_idle: AfterIdle | None = None
    lifecycle_hooks: LifecycleHooks | None = None
    resume_triggers: ResumeTriggers | None = None


class Architecture(StrEnum):
    """Processor architectures of the wire."""

    X86_64 = "x86_64"
    ARM64 = "arm64"


class ProvisioningTier(StrEnum):
    """Tiers of the wire."""

    STANDARD = "standard"
    FLEX = "flex"


class LaunchParameters(BaseModel):
    """How the devbox is started. What Outgate has no use for is shown again as it was given."""

    model_config = BODY_CONFIG

    after_idle: AfterIdle | None = None
    architecture: Architecture | None = None
    available_ports: Annotated[list[Count], Field(max_length=COMMANDS_MAX)] | None = None
    custom_disk_size: Count | None = None
    lifecycle: LifecycleConfiguration | None = None
    provisioning_tier: ProvisioningTier | None = None
    required_services: Annotated[list[DevboxName], Field(max_length=COMMANDS_MAX)] | None = None
    network_policy_id: str | None = None
    keep_alive_time_seconds: Annotated[Whole, _said(minimum=1, maximum=KEEP_ALIVE_S_MAX)] | None = None
    launch_commands: Annotated[list[Command], _said(maxItems=COMMANDS_MAX)] | None = None
    user_parameters: UserParameters | None = None
    resource_size_request: ResourceSize | None = None
    custom_cpu_cores: Annotated[float, _said(exclusiveMinimum=0, maximum=CPU_CORES_MAX)] | None = None
    custom_gb_memory: Annotated[Whole, _said(minimum=1, maximum=MEMORY_GIB_MAX)] | None = None

    def to_input(self) -> LaunchInput:
        """The value control judges."""
        user = self.user_parameters
        return LaunchInput(
            network_policy_id=self.network_policy_id,
            keep_alive_time_seconds=self.keep_alive_time_seconds,
            launch_commands=tuple(self.launch_commands or ()),
            user=None if user is None else UserInput(user.username, user.uid),
            size=self.resource_size_request or ResourceSize.SMALL,
            custom_cpu_cores=self.custom_cpu_cores,
            custom_gb_memory=self.custom_gb_memory,
            echo=self.model_dump(mode="json", exclude_none=True),
        )


class DevboxCreateParams(BaseModel):
    """A new devbox from the stock image."""

    model_config = ConfigDict(**BODY_CONFIG | {"extra": "allow"})

    name: DevboxName | None = None
    metadata: Metadata | None = None
    environment_variables: Environment | None = None
    entrypoint: Command | None = None
    launch_parameters: LaunchParameters | None = None

    def to_input(self) -> DevboxInput:
        """The value control judges. Raises InvalidValueError for fields that this server does not serve."""
        extra = self.__pydantic_extra__ or {}
        for field in _NOT_SERVED:
            if extra.get(field):
                message = f"This server does not serve {field}; leave it out."
                raise InvalidValueError(message, field=field, code="not_served")
        return DevboxInput(
            name=self.name,
            metadata=self.metadata or {},
            environment=self.environment_variables or {},
            entrypoint=self.entrypoint,
            launch=LaunchInput() if self.launch_parameters is None else self.launch_parameters.to_input(),
        )


class DevboxUpdateParams(BaseModel):
    """A change: absent and null keep, ``""`` and ``{}`` clear."""

    model_config = BODY_CONFIG

    name: DevboxName | None = None
    metadata: Metadata | None = None

    def to_input(self) -> DevboxDescription:
        """The value control judges."""
        return DevboxDescription(self.name, self.metadata)


class DevboxWaitForStatusRequest(BaseModel):
    """Which statuses to wait for, and how long: 10 s unless given, 30 s at most."""

    model_config = BODY_CONFIG

    statuses: Annotated[list[DevboxStatus], Field(min_length=1)]
    # Clients send whole numbers and fractions; more than the most is clamped, as they expect.
    timeout_seconds: Annotated[float, Field(ge=0)] | None = None

    def timeout_s(self) -> float:
        """The wait that is meant."""
        return WAIT_S_DEFAULT if self.timeout_seconds is None else min(self.timeout_seconds, WAIT_S_MAX)
