"""``launch_parameters``, of devboxes and of blueprints: their types. What they mean is judged by control."""

from typing import Annotated

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG, Whole
from outgate.api.field_types import Command, Count, DevboxName, said
from outgate.control.devbox_launch import (
    COMMANDS_MAX,
    CPU_CORES_MAX,
    DISK_GIB_MAX,
    IDLE_S_MAX,
    KEEP_ALIVE_S_MAX,
    MEMORY_GIB_MAX,
    PORT_MAX,
    SUSPEND_DEADLINE_MS_MAX,
    UID_MAX,
    USERNAME_PATTERN,
    Architecture,
    ProvisioningTier,
    ResourceSize,
)
from outgate.control.devbox_states import OnIdle


class UserParameters(BaseModel):
    """Who runs commands in the devbox; ``root`` with uid 0 is allowed."""

    model_config = BODY_CONFIG

    username: Annotated[str, said(pattern=USERNAME_PATTERN)]
    uid: Annotated[Whole, said(minimum=0, maximum=UID_MAX)]


class AfterIdle(BaseModel):
    """What becomes of a devbox that was idle for so long. Its keep-alive time does not count then."""

    model_config = BODY_CONFIG

    idle_time_seconds: Annotated[Whole, said(minimum=1, maximum=IDLE_S_MAX)]
    on_idle: OnIdle


class LifecycleHooks(BaseModel):
    """Commands before a suspension, one after another; what fails or takes too long does not hold it up."""

    model_config = BODY_CONFIG

    suspend_commands: Annotated[list[Command], said(maxItems=COMMANDS_MAX)] | None = None
    suspend_deadline_ms: Annotated[Whole, said(minimum=1, maximum=SUSPEND_DEADLINE_MS_MAX)] | None = None


class ResumeTriggers(BaseModel):
    """What resumes a suspended devbox by itself: ``http`` requests through its tunnel. (There are no axons here.)"""

    model_config = BODY_CONFIG

    axon_event: bool | None = None
    http: bool | None = None


class LifecycleConfiguration(BaseModel):
    """``after_idle`` here and the older one beside ``lifecycle`` must say the same if both are given."""

    model_config = BODY_CONFIG

    after_idle: AfterIdle | None = None
    lifecycle_hooks: LifecycleHooks | None = None
    resume_triggers: ResumeTriggers | None = None


class LaunchParameters(BaseModel):
    """How a devbox is started, how large it is, how long it lives."""

    model_config = BODY_CONFIG

    after_idle: AfterIdle | None = None
    architecture: Architecture | None = None
    available_ports: (
        Annotated[list[Annotated[Count, said(minimum=1, maximum=PORT_MAX)]], Field(max_length=COMMANDS_MAX)] | None
    ) = None
    custom_cpu_cores: Annotated[float, said(exclusiveMinimum=0, maximum=CPU_CORES_MAX)] | None = None
    custom_disk_size: Annotated[Whole, said(minimum=1, maximum=DISK_GIB_MAX)] | None = None
    custom_gb_memory: Annotated[Whole, said(minimum=1, maximum=MEMORY_GIB_MAX)] | None = None
    keep_alive_time_seconds: Annotated[Whole, said(minimum=1, maximum=KEEP_ALIVE_S_MAX)] | None = None
    launch_commands: Annotated[list[Command], said(maxItems=COMMANDS_MAX)] | None = None
    lifecycle: LifecycleConfiguration | None = None
    network_policy_id: str | None = None
    provisioning_tier: ProvisioningTier | None = None
    required_services: Annotated[list[DevboxName], said(maxItems=0)] | None = None
    resource_size_request: ResourceSize | None = None
    user_parameters: UserParameters | None = None

    def to_launch(self) -> dict[str, object]:
        """What was given, as JSON has it: the form in which control judges, keeps and hands it on."""
        return self.model_dump(mode="json", exclude_none=True)
