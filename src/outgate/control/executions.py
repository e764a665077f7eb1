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

from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.devbox_input import COMMAND_LENGTH_MAX
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import (
    ConflictError,
    ExecutionWaitTimeoutError,
    HostUnavailableError,
    NotFoundError,
    WaitTimeoutError,
)
from outgate.control.ids import IdPrefix, derive_id, is_id
from outgate.control.services import Services
from outgate.control.texts import parse_text
from outgate.control.transactions import read_as
from outgate.errors import InvalidValueError
from outgate.model.desired import ExecutionRequest, ExecutionState
from outgate.store.devboxes import find_devbox
from outgate.store.hosts import find_host

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
class _Place:
    """A devbox, where its agent is, and the devbox's status."""

    devbox_id: str
    url: str
    status: str


async def start_execution(
    services: Services, call: Call, devbox_id: str, command: str, *, attach_stdin: bool
) -> ExecutionState:
    """Start ``command`` and return at once.

    Raises NotFoundError, ConflictError when the devbox is not running, HostUnavailableError.
    """
    request = call.request
    unique = secrets.token_bytes(32) if request is None else request.digest + request.body_digest
    return await _start(services, call.caller, devbox_id, command, unique, attach_stdin=attach_stdin)


async def execute(
    services: Services, call: Call, devbox_id: str, command: str, *, command_id: str, hold_s: float, last_n: int
) -> ExecutionState:
    """Run ``command`` once for each ``command_id``; its state when it is completed or after ``hold_s``.

    Raises NotFoundError, ConflictError when the devbox is not running, HostUnavailableError.
    """
    if not command_id or len(command_id) > COMMAND_ID_LENGTH_MAX:
        message = f"A command_id has 1 to {COMMAND_ID_LENGTH_MAX} characters; use a UUID."
        raise InvalidValueError(message, field="command_id")
    unique = f"{call.account_id}\n{command_id}".encode("utf-8", "surrogatepass")
    state = await _start(services, call.caller, devbox_id, command, unique, attach_stdin=False)
    if state.status == ExecutionStatus.COMPLETED and last_n == LAST_N_DEFAULT:
        return state
    return await _read_until_completed(
        services, call.caller, devbox_id, state.execution_id, hold_s=hold_s, last_n=last_n
    )


async def execute_to_end(services: Services, call: Call, devbox_id: str, command: str) -> ExecutionState:
    """Run ``command`` to its end. Raises as :func:`execute`, and WaitTimeoutError after ten minutes."""
    state = await start_execution(services, call, devbox_id, command, attach_stdin=False)
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
    place = await _locate(services, caller, devbox_id)
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
    place = await _locate(services, caller, devbox_id)
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


async def kill_execution(services: Services, caller: Caller, devbox_id: str, execution_id: str) -> ExecutionState:
    """Kill the command; its state then. Raises NotFoundError, HostUnavailableError."""
    place = await _locate(services, caller, devbox_id)
    _check_execution_id(execution_id)
    try:
        state = await services.gateway.kill_execution(place.url, place.devbox_id, execution_id)
    except OSError as error:
        raise _unreachable(place) from error
    return _found(state, execution_id)


async def _start(
    services: Services, caller: Caller, devbox_id: str, command: str, unique: bytes, *, attach_stdin: bool
) -> ExecutionState:
    parse_text(command, field="command", length_max=COMMAND_LENGTH_MAX)
    place = await _locate(services, caller, devbox_id)
    if place.status != DevboxStatus.RUNNING:
        message = f"Devbox {devbox_id} is {place.status}; commands run in running devboxes only."
        raise ConflictError(message, code="devbox_not_running")
    digest = hashlib.sha256(devbox_id.encode() + b"\n" + unique).digest()
    request = ExecutionRequest(derive_id(IdPrefix.EXECUTION, digest), command, attach_stdin)
    try:
        state = await services.gateway.start_execution(place.url, devbox_id, request)
    except OSError as error:
        raise _unreachable(place) from error
    if state is None:
        raise HostUnavailableError(f"The host of devbox {devbox_id} does not have it running; try again in a moment.")
    return state


async def _read_until_completed(
    services: Services, caller: Caller, devbox_id: str, execution_id: str, *, hold_s: float, last_n: int
) -> ExecutionState:
    deadline_s = monotonic_s() + hold_s
    place = await _locate(services, caller, devbox_id)
    with services.waits.hold(caller.account_id, services.settings.waits_max):
        while True:
            left_s = max(0.0, deadline_s - monotonic_s())
            state = await _read(services, place, execution_id, wait_s=min(left_s, HOLD_S_MAX), last_n=last_n)
            if state.status == ExecutionStatus.COMPLETED or left_s <= 0:
                return state


async def _read(services: Services, place: _Place, execution_id: str, *, wait_s: float, last_n: int) -> ExecutionState:
    _check_execution_id(execution_id)
    try:
        state = await services.gateway.read_execution(
            place.url, place.devbox_id, execution_id, wait_s=wait_s, last_n=last_n
        )
    except OSError as error:
        raise _unreachable(place) from error
    return _found(state, execution_id)


async def _read_later(
    services: Services,
    place: _Place,
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


def _check_execution_id(execution_id: str) -> None:
    if not is_id(IdPrefix.EXECUTION, execution_id):
        raise _execution_not_found(execution_id)


def _found(state: ExecutionState | None, execution_id: str) -> ExecutionState:
    if state is None:
        raise _execution_not_found(execution_id)
    return state


def _execution_not_found(execution_id: str) -> NotFoundError:
    return NotFoundError(f"Execution {execution_id[:80]!r} not found.", code="execution_not_found")


def _unreachable(place: _Place) -> HostUnavailableError:
    return HostUnavailableError(f"The host of devbox {place.devbox_id} does not answer; try again in a moment.")


async def _locate(services: Services, caller: Caller, devbox_id: str) -> _Place:
    if not is_id(IdPrefix.DEVBOX, devbox_id):
        raise devbox_not_found(devbox_id)
    found = await read_as(services, caller, lambda tx: _read_place(tx, caller, devbox_id))
    if found is None:
        raise devbox_not_found(devbox_id)
    return found


def _read_place(tx: Connection, caller: Caller, devbox_id: str) -> _Place | None:
    row = find_devbox(tx, caller.account_id, devbox_id)
    if row is None:
        return None
    host = find_host(tx, row.host_id)
    if host is None or host.url is None:
        raise HostUnavailableError(f"The host of devbox {devbox_id} has not reported yet; try again in a moment.")
    return _Place(devbox_id, host.url, row.status)
