"""Bodies of the execution routes."""

from typing import Annotated, Final

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.api.devbox_bodies import Command
from outgate.control.executions import COMMAND_ID_LENGTH_MAX, HOLD_S_MAX, ExecutionStatus

CommandId = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": COMMAND_ID_LENGTH_MAX})]
Seconds = Annotated[float, Field(ge=0)]
HOLD_S: Final = HOLD_S_MAX


class DevboxExecuteParams(BaseModel):
    """A command that runs once for each ``command_id``. Held for ``optimistic_timeout`` seconds, 25 at most."""

    model_config = BODY_CONFIG

    command: Command
    command_id: CommandId
    optimistic_timeout: Seconds | None = None

    def hold_s(self) -> float:
        """How long to wait for the end."""
        return HOLD_S if self.optimistic_timeout is None else min(self.optimistic_timeout, HOLD_S)


class DevboxExecuteAsyncParams(BaseModel):
    """A command to start."""

    model_config = BODY_CONFIG

    command: Command
    attach_stdin: bool | None = None


class DevboxExecuteSyncParams(BaseModel):
    """A command to run to its end."""

    model_config = BODY_CONFIG

    command: Command
    attach_stdin: bool | None = None


class DevboxWaitForCommandParams(BaseModel):
    """Which statuses to wait for, and how long: 25 s unless given and at most."""

    model_config = BODY_CONFIG

    statuses: Annotated[list[ExecutionStatus], Field(min_length=1)]
    timeout_seconds: Seconds | None = None

    def timeout_s(self) -> float:
        """The wait that is meant."""
        return HOLD_S if self.timeout_seconds is None else min(self.timeout_seconds, HOLD_S)


class ExecutionKillParams(BaseModel):
    """A devbox's command always dies with its children, whatever this says."""

    model_config = BODY_CONFIG

    kill_process_group: bool | None = None
