"""Commands in devboxes. The host's agent holds all of an execution's state; the store holds nothing of it.

An execution's id is derived from what makes the call unique, and starting is idempotent by that id: a call that
is sent twice finds the command it started the first time, even if the api was killed in between.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from outgate.clock import monotonic_s
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.devbox_launch import COMMAND_LENGTH_MAX
from outgate.control.errors import ExecutionWaitTimeoutError, NotFoundError, WaitTimeoutError
from outgate.control.host_places import HostPlace, locate_devbox, not_there_yet, speaking_with
from outgate.control.ids import IdPrefix, derive_id, is_id
from outgate.control.services import Services
from outgate.control.texts import parse_name, parse_text
from outgate.errors import InvalidValueError
from outgate.model.desired import ExecutionRequest, ExecutionState
from outgate.model.executions import StdinOutcome, StdinRequest, StdinSignal

HOLD_S_MAX: Final = 25.0
LAST_N_DEFAULT: Final = 100
LAST_N_MAX: Final = 10_000
SYNC_HOLD_S_MAX: Final = 600.0
"""Clients give ``execute_sync`` ten minutes."""
COMMAND_ID_LENGTH_MAX: Final = 256
_START_POLL_S: Final = 0.25
"""How soon a wait for ``running`` sees it."""


class ExecutionStatus(StrEnum):
    """States of an execution, in their order."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class CommandInput:
    """A command, and in which shell: a fresh one, or the lasting one of that name."""

    command: str
    attach_stdin: bool = False
    shell_name: str | None = None


@dataclass(frozen=True, slots=True)
class StdinInput:
    """What is typed: text or a signal, exactly one of them."""

    text: str | None = None
    signal: StdinSignal | None = None


async def start_execution(services: Services, call: Call, devbox_id: str, given: CommandInput) -> ExecutionState:
    """Start a command and return at once.

    Raises NotFoundError, ConflictError when the devbox is not running or too busy, HostUnavailableError.
    """
    request = call.request
    unique = secrets.token_bytes(32) if request is None else request.digest + request.body_digest
    return await _start(services, call.caller, devbox_id, given, unique)


async def execute(
    services: Services,
    call: Call,
    devbox_id: str,
    given: CommandInput,
    *,
    command_id: str,
    hold_s: float,
    last_n: int,
) -> ExecutionState:
    """Run a command once for each ``command_id``; its state when it is completed or after ``hold_s``.

    Raises as :func:`start_execution`.
    """
    if not command_id or len(command_id) > COMMAND_ID_LENGTH_MAX:
        message = f"A command_id has 1 to {COMMAND_ID_LENGTH_MAX} characters; use a UUID."
        raise InvalidValueError(message, field="command_id")
    unique = f"{call.account_id}\n{command_id}".encode("utf-8", "surrogatepass")
    state = await _start(services, call.caller, devbox_id, given, unique)
    if state.status == ExecutionStatus.COMPLETED and last_n == LAST_N_DEFAULT:
        return state
    return await _read_until_completed(
        services, call.caller, devbox_id, state.execution_id, hold_s=hold_s, last_n=last_n
    )


async def execute_to_end(services: Services, call: Call, devbox_id: str, given: CommandInput) -> ExecutionState:
    """Run a command to its end. Raises as :func:`execute`, and WaitTimeoutError after ten minutes."""
    if given.attach_stdin:
        message = "A command that is waited for cannot be typed into; use execute_async, or leave attach_stdin out."
        raise InvalidValueError(message, field="attach_stdin")
    state = await start_execution(services, call, devbox_id, given)
    state = await _read_until_completed(
        services, call.caller, devbox_id, state.execution_id, hold_s=SYNC_HOLD_S_MAX, last_n=LAST_N_MAX
    )
    if state.status != ExecutionStatus.COMPLETED:
        message = f"The command still runs after {SYNC_HOLD_S_MAX:g} s, as execution {state.execution_id}."
        raise WaitTimeoutError(message)
    return state


async def get_execution(
    services: Services, caller: Caller, devbox_id: str, execution_id: str, *, last_n: int
) -> ExecutionState:
    """The execution as it is. Raises NotFoundError, HostUnavailableError."""
    place = await locate_devbox(services, caller, devbox_id)
    return await _read(services, place, execution_id, wait_s=0.0, last_n=last_n)


async def await_execution(
    services: Services,
    caller: Caller,
    devbox_id: str,
    execution_id: str,
    statuses: Collection[ExecutionStatus],
    *,
    timeout_s: float,
    last_n: int,
) -> ExecutionState:
    """The execution as soon as its status is one of ``statuses``.

    Raises NotFoundError, HostUnavailableError, and WaitTimeoutError after the whole of ``timeout_s``.
    """
    deadline_s = monotonic_s() + timeout_s
    place = await locate_devbox(services, caller, devbox_id)
    with services.waits.hold(caller.account_id, services.settings.waits_max):
        state = await _read(services, place, execution_id, wait_s=0.0, last_n=last_n)
        while state.status not in statuses:
            left_s = deadline_s - monotonic_s()
            if left_s <= 0:
                wanted = ", ".join(sorted(statuses))
                message = f"Execution {execution_id} is {state.status} after {timeout_s:g} s; waited for {wanted}."
                raise ExecutionWaitTimeoutError(message)
            state = await _read_later(services, place, state, statuses, left_s=left_s, last_n=last_n)
        return state


async def kill_execution(
    services: Services, caller: Caller, devbox_id: str, execution_id: str, *, is_group: bool
) -> ExecutionState:
    """Kill the command, or all of its process group; its state then. Raises NotFoundError, HostUnavailableError."""
    place = await locate_devbox(services, caller, devbox_id)
    check_execution_id(execution_id)
    with speaking_with(place):
        state = await services.gateway.kill_execution(place.url, place.devbox_id, execution_id, is_group=is_group)
    return _found(state, execution_id)


async def send_stdin(
    services: Services, call: Call, devbox_id: str, execution_id: str, given: StdinInput
) -> StdinOutcome:
    """Type into a command that was started with its standard input attached; whether it was delivered.

    Raises NotFoundError, InvalidValueError (also when no standard input is attached), HostUnavailableError.
    """
    if (given.text is None) == (given.signal is None):
        raise InvalidValueError("Give exactly one of text and signal.", field="text")
    place = await locate_devbox(services, call.caller, devbox_id)
    check_execution_id(execution_id)
    unique = None if call.request is None else (call.request.digest + call.request.body_digest).hex()
    request = StdinRequest(given.text, given.signal, unique)
    services.activity.note(devbox_id, call.now_ms)
    with speaking_with(place):
        outcome = await services.gateway.send_stdin(place.url, place.devbox_id, execution_id, request)
    if outcome is None:
        raise _execution_not_found(execution_id)
    return outcome


async def _start(
    services: Services, caller: Caller, devbox_id: str, given: CommandInput, unique: bytes
) -> ExecutionState:
    parse_text(given.command, field="command", length_max=COMMAND_LENGTH_MAX)
    if given.shell_name is not None:
        parse_name(given.shell_name, field="shell_name")
    place = await locate_devbox(services, caller, devbox_id)
    place.check_running("commands run")
    digest = hashlib.sha256(devbox_id.encode() + b"\n" + unique).digest()
    execution_id = derive_id(IdPrefix.EXECUTION, digest)
    request = ExecutionRequest(execution_id, given.command, given.attach_stdin, given.shell_name)
    with speaking_with(place):
        state = await services.gateway.start_execution(place.url, devbox_id, request)
    if state is None:
        raise not_there_yet(place)
    return state


async def _read_until_completed(
    services: Services, caller: Caller, devbox_id: str, execution_id: str, *, hold_s: float, last_n: int
) -> ExecutionState:
    deadline_s = monotonic_s() + hold_s
    place = await locate_devbox(services, caller, devbox_id)
    with services.waits.hold(caller.account_id, services.settings.waits_max):
        while True:
            left_s = max(0.0, deadline_s - monotonic_s())
            state = await _read(services, place, execution_id, wait_s=min(left_s, HOLD_S_MAX), last_n=last_n)
            if state.status == ExecutionStatus.COMPLETED or left_s <= 0:
                return state


async def _read(
    services: Services, place: HostPlace, execution_id: str, *, wait_s: float, last_n: int
) -> ExecutionState:
    check_execution_id(execution_id)
    with speaking_with(place):
        state = await services.gateway.read_execution(
            place.url, place.devbox_id, execution_id, wait_s=wait_s, last_n=last_n
        )
    return _found(state, execution_id)


async def _read_later(
    services: Services,
    place: HostPlace,
    state: ExecutionState,
    statuses: Collection[ExecutionStatus],
    *,
    left_s: float,
    last_n: int,
) -> ExecutionState:
    """The execution's next state. Agents wake a wait for completion; other changes are looked for."""
    if state.status == ExecutionStatus.COMPLETED:
        # Nothing comes after completion, yet the caller wants something else: hold, as promised.
        await asyncio.sleep(left_s)
        return state
    is_start_wanted = state.status == ExecutionStatus.QUEUED and ExecutionStatus.RUNNING in statuses
    wait_s = min(left_s, _START_POLL_S if is_start_wanted else HOLD_S_MAX)
    return await _read(services, place, state.execution_id, wait_s=wait_s, last_n=last_n)


def check_execution_id(execution_id: str) -> None:
    """Raise NotFoundError for what cannot be the id of an execution."""
    if not is_id(IdPrefix.EXECUTION, execution_id):
        raise _execution_not_found(execution_id)


def _found(state: ExecutionState | None, execution_id: str) -> ExecutionState:
    if state is None:
        raise _execution_not_found(execution_id)
    return state


def _execution_not_found(execution_id: str) -> NotFoundError:
    return NotFoundError(f"Execution {execution_id[:80]!r} not found.", code="execution_not_found")
