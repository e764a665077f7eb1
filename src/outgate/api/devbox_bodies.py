"""Bodies of the devbox routes, and what they mean to control."""

from typing import Annotated, Final

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.api.field_types import Command, DevboxName, Environment, Metadata, said
from outgate.api.launch_bodies import LaunchParameters
from outgate.api.mount_bodies import CodeMounts, FileMounts, Mounts, to_mount_inputs
from outgate.api.tunnel_bodies import TunnelParams
from outgate.control.devbox_input import DevboxInput, Origin
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import DevboxDescription
from outgate.control.ids import IdPrefix, id_pattern
from outgate.control.secrets import BINDINGS_MAX
from outgate.control.variables import VARIABLE_PATTERN
from outgate.errors import InvalidValueError

WAIT_S_DEFAULT: Final = 10.0
WAIT_S_MAX: Final = 30.0

Secrets = Annotated[dict[str, str], said(maxProperties=BINDINGS_MAX, propertyNames={"pattern": VARIABLE_PATTERN})]


class GatewayBinding(BaseModel):
    """An agent gateway for the devbox. Refused, as this server runs none."""

    model_config = BODY_CONFIG

    gateway: str
    secret: str


class McpBinding(BaseModel):
    """An MCP server for the devbox. Refused, as this server runs no hub."""

    model_config = BODY_CONFIG

    mcp_config: str
    secret: str


class DevboxCreateParams(BaseModel):
    """A new devbox: from a blueprint, from a snapshot, or from the stock image."""

    model_config = BODY_CONFIG

    blueprint_id: Annotated[str, said(pattern=id_pattern(IdPrefix.BLUEPRINT))] | None = None
    blueprint_name: DevboxName | None = None
    snapshot_id: Annotated[str, said(pattern=id_pattern(IdPrefix.SNAPSHOT))] | None = None
    name: DevboxName | None = None
    metadata: Metadata | None = None
    environment_variables: Environment | None = None
    secrets: Secrets | None = None
    entrypoint: Command | None = None
    launch_parameters: LaunchParameters | None = None
    mounts: Mounts | None = None
    file_mounts: FileMounts | None = None
    code_mounts: CodeMounts | None = None
    tunnel: TunnelParams | None = None
    gateways: Annotated[dict[str, GatewayBinding], said(maxProperties=0)] | None = None
    mcp: Annotated[dict[str, McpBinding], said(maxProperties=0)] | None = None

    def to_input(self) -> DevboxInput:
        """The value control judges. Raises InvalidValueError for what this server cannot give a devbox."""
        for field in ("gateways", "mcp"):
            if getattr(self, field):
                message = (
                    f"This server proxies no credentials into devboxes, so {field} would have no effect; give the "
                    "devbox the secret itself by 'secrets', and allow the host in its network policy."
                )
                raise InvalidValueError(message, field=field, code="not_served")
        return DevboxInput(
            name=self.name,
            metadata=self.metadata or {},
            environment=self.environment_variables or {},
            secrets=self.secrets or {},
            entrypoint=self.entrypoint,
            launch={} if self.launch_parameters is None else self.launch_parameters.to_launch(),
            mounts=to_mount_inputs(self.mounts, self.file_mounts, self.code_mounts),
            origin=Origin(self.blueprint_id, self.blueprint_name, self.snapshot_id),
            tunnel=None if self.tunnel is None else self.tunnel.to_input(),
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
