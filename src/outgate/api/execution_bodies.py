"""Bodies of the execution routes."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.api.field_types import Command, said
from outgate.control.executions import COMMAND_ID_LENGTH_MAX, HOLD_S_MAX, CommandInput, ExecutionStatus
from outgate.control.texts import NAME_LENGTH_MAX, NAME_PATTERN
from outgate.model.executions import StdinSignal

CommandId = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": COMMAND_ID_LENGTH_MAX})]
ShellName = Annotated[str, said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(ge=0)]
HOLD_S: Final = HOLD_S_MAX


class DevboxExecuteParams(BaseModel):
    """A command that runs once for each ``command_id``. Held for ``optimistic_timeout`` seconds, 25 at most."""

    model_config = BODY_CONFIG

    command: Command
    command_id: CommandId
    optimistic_timeout: Seconds | None = None
    shell_name: ShellName | None = None

    def given(self) -> CommandInput:
        """What is to be run."""
        return CommandInput(self.command, shell_name=self.shell_name)

    def hold_s(self) -> float:
        """How long to wait for the end."""
        return HOLD_S if self.optimistic_timeout is None else min(self.optimistic_timeout, HOLD_S)


class DevboxExecuteAsyncParams(BaseModel):
    """A command to start. ``attach_stdin``: it will be typed into."""

    model_config = BODY_CONFIG

    command: Command
    attach_stdin: bool | None = None
    shell_name: ShellName | None = None

    def given(self) -> CommandInput:
        """What is to be run."""
        return CommandInput(self.command, self.attach_stdin or False, self.shell_name)


class DevboxExecuteSyncParams(DevboxExecuteAsyncParams):
    """A command to run to its end; it cannot be typed into."""

    attach_stdin: Annotated[bool | None, said(enum=[False, None])] = None


class DevboxWaitForCommandParams(BaseModel):
    """Which statuses to wait for, and how long: 25 s unless given and at most."""

    model_config = BODY_CONFIG

    statuses: Annotated[list[ExecutionStatus], Field(min_length=1)]
    timeout_seconds: Seconds | None = None

    def timeout_s(self) -> float:
        """The wait that is meant."""
        return HOLD_S if self.timeout_seconds is None else min(self.timeout_seconds, HOLD_S)


class ExecutionKillParams(BaseModel):
    """Whether what the command started in its process group dies with it; if not (the default) it goes on."""

    model_config = BODY_CONFIG

    kill_process_group: bool | None = None


class ExecutionSendStdInParams(BaseModel):
    """Exactly one of both: text to type, or ``EOF`` (no more of it) or ``INTERRUPT`` (Control-C)."""

    model_config = BODY_CONFIG | ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}, "signal": {"type": "null"}}},
                {"required": ["signal"], "properties": {"signal": {"type": "string"}, "text": {"type": "null"}}},
            ]
        }
    )

    text: str | None = None
    signal: StdinSignal | None = None
