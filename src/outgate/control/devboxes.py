"""Devboxes: create, describe, keep alive, shut down. (Reading and waiting are in ``devbox_reading``.)"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from outgate.control.builtin_policies import default_policy_id
from outgate.control.calls import Call
from outgate.control.devbox_input import DevboxInput, DevboxSpec, parse_devbox_input
from outgate.control.devbox_states import (
    DevboxStatus,
    ShutdownReason,
    encode_devbox,
    end_by_request,
    start_transitions,
)
from outgate.control.errors import ConflictError, HostUnavailableError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim
from outgate.control.services import Services
from outgate.control.texts import parse_metadata, parse_short_text
from outgate.control.transactions import write_as
from outgate.control.wakeups import Subject, Topic
from outgate.errors import InvalidValueError
from outgate.model.desired import DesiredPhase, DevboxDocument
from outgate.store.devboxes import (
    DevboxRow,
    count_live,
    find_devbox,
    find_devbox_locked,
    insert_devbox,
    list_expired,
    save_devbox,
)
from outgate.store.hosts import find_emptiest_host
from outgate.store.policies import find_policy_shared, lock_account
from outgate.store.sequence import take_numbers

EXPIRED_BATCH_MAX = 100
"""Devboxes ended per sweep, so that a thousand that expire together do not hold the writer for long."""


@dataclass(frozen=True, slots=True)
class DevboxDescription:
    """An update: None keeps."""

    name: str | None = None
    metadata: Mapping[str, str] | None = None


async def create_devbox(services: Services, call: Call, given: DevboxInput) -> DevboxRow:
    """A new devbox, ``provisioning``. Its host is told; nothing of it runs before its policy is in force.

    Raises InvalidValueError (also for an unknown policy) and HostUnavailableError when there is no host.
    """
    spec = parse_devbox_input(given)
    row = await write_as(services, call.caller, lambda tx: _create(tx, services, call, spec))
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id))
    return row


def _create(tx: Connection, services: Services, call: Call, spec: DevboxSpec) -> DevboxRow:
    devbox_id = services.ids.make(IdPrefix.DEVBOX, call.now_ms)
    made = claim(tx, call.request, devbox_id, call.now_ms)
    if made is not None:
        return _find_own(tx, call, made)
    lock_account(tx, call.account_id)
    devboxes_max = services.settings.devboxes_max
    if count_live(tx, call.account_id) >= devboxes_max:
        message = f"The account already has {devboxes_max} live devboxes, the most it may have; shut one down first."
        raise InvalidValueError(message, code="devbox_limit")
    policy_id = _choose_policy(tx, services, call, spec)
    host = find_emptiest_host(tx)
    if host is None:
        raise HostUnavailableError("There is no host to run a devbox on; start 'outgate serve' or an agent first.")
    document = DevboxDocument(
        id=devbox_id,
        account_id=call.account_id,
        policy_id=policy_id,
        phase=DesiredPhase.RUNNING,
        environment=spec.environment,
        username=spec.user.username,
        uid=spec.user.uid,
        launch_commands=spec.launch_commands,
        entrypoint=spec.entrypoint,
        cpu_cores=spec.resources.cpu_cores,
        memory_mib=spec.resources.memory_mib,
    )
    row = DevboxRow(
        id=devbox_id,
        account_id=call.account_id,
        host_id=host.id,
        policy_id=policy_id,
        key_id=call.key_id,
        name=spec.name,
        metadata=json.dumps(spec.metadata),
        launch_parameters=json.dumps(spec.launch_parameters),
        status=DevboxStatus.PROVISIONING.value,
        transitions=start_transitions(DevboxStatus.PROVISIONING, call.now_ms),
        document=encode_devbox(document),
        detail="",
        failure_reason=None,
        shutdown_reason=None,
        create_time_ms=call.now_ms,
        end_time_ms=None,
        keep_alive_s=spec.keep_alive_s,
        expire_time_ms=call.now_ms + spec.keep_alive_s * 1000,
        released=False,
        seq=take_numbers(tx).seq,
    )
    insert_devbox(tx, row)
    return row


def _choose_policy(tx: Connection, services: Services, call: Call, spec: DevboxSpec) -> str:
    """The devbox's own policy, else the server's default (design decision 16)."""
    wanted = spec.network_policy_id
    if wanted is None:
        return default_policy_id(services.settings.default_policy)
    policy = find_policy_shared(tx, call.account_id, wanted) if is_id(IdPrefix.POLICY, wanted) else None
    if policy is None or policy.delete_time_ms is not None:
        message = f"There is no network policy {wanted[:80]!r} in this account; create it first."
        raise InvalidValueError(message, field="launch_parameters.network_policy_id", code="unknown_network_policy")
    return policy.id


async def describe_devbox(services: Services, call: Call, devbox_id: str, given: DevboxDescription) -> DevboxRow:
    """Change name or metadata; ``""`` and ``{}`` clear. Raises NotFoundError and InvalidValueError."""
    name = None if given.name is None else parse_short_text(given.name, field="name")
    metadata = None if given.metadata is None else json.dumps(parse_metadata(given.metadata))

    def describe(tx: Connection) -> DevboxRow:
        row = _find_own_locked(tx, call, devbox_id)
        changed = replace(
            row, name=row.name if name is None else name, metadata=row.metadata if metadata is None else metadata
        )
        save_devbox(tx, changed)
        return changed

    return await write_as(services, call.caller, describe)


async def keep_devbox_alive(services: Services, call: Call, devbox_id: str) -> None:
    """Start the keep-alive time anew. Raises NotFoundError, and ConflictError for an ended devbox."""

    def extend(tx: Connection) -> None:
        row = _find_own_locked(tx, call, devbox_id)
        if row.end_time_ms is not None:
            raise ConflictError(f"Devbox {devbox_id} has ended; create a new one.", code="devbox_ended")
        save_devbox(tx, replace(row, expire_time_ms=call.now_ms + row.keep_alive_s * 1000))

    await write_as(services, call.caller, extend)


async def shut_down_devbox(services: Services, call: Call, devbox_id: str) -> DevboxRow:
    """End the devbox: the view says ``shutdown`` at once, its host follows. Ended ones stay as they are.

    Raises NotFoundError.
    """

    def shut_down(tx: Connection) -> DevboxRow:
        row = _find_own_locked(tx, call, devbox_id)
        return _end(tx, row, ShutdownReason.API_SHUTDOWN, call.now_ms) or row

    return _told(services, await write_as(services, call.caller, shut_down))


async def end_expired_devboxes(services: Services, now_ms: int) -> int:
    """End devboxes whose keep-alive time is up; how many (at most EXPIRED_BATCH_MAX)."""
    expired = await services.database.read(lambda tx: list_expired(tx, now_ms=now_ms, limit=EXPIRED_BATCH_MAX))
    for account_id, devbox_id in expired:
        ended = await services.database.write(_expire(account_id, devbox_id, now_ms))
        if ended is not None:
            _told(services, ended)
    return len(expired)


def _expire(account_id: str, devbox_id: str, now_ms: int) -> Callable[[Connection], DevboxRow | None]:
    def expire(tx: Connection) -> DevboxRow | None:
        row = find_devbox_locked(tx, account_id, devbox_id)
        # It may have been kept alive since it was listed.
        if row is None or row.expire_time_ms > now_ms:
            return None
        return _end(tx, row, ShutdownReason.KEEP_ALIVE_TIMEOUT, now_ms)

    return expire


def _end(tx: Connection, row: DevboxRow, reason: ShutdownReason, now_ms: int) -> DevboxRow | None:
    step = end_by_request(row, reason, now_ms)
    if step is None:
        return None
    ended = replace(step.row, seq=take_numbers(tx).seq)
    save_devbox(tx, ended)
    return ended


def _told(services: Services, row: DevboxRow) -> DevboxRow:
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id), Topic(Subject.DEVBOX, row.id))
    return row


def devbox_not_found(devbox_id: str) -> NotFoundError:
    """The refusal for ids that name no devbox of the caller's."""
    shown = devbox_id if is_id(IdPrefix.DEVBOX, devbox_id) else repr(devbox_id[:80])
    return NotFoundError(f"Devbox {shown} not found.", code="devbox_not_found")


def _find_own(tx: Connection, call: Call, devbox_id: str) -> DevboxRow:
    row = find_devbox(tx, call.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if row is None:
        raise devbox_not_found(devbox_id)
    return row


def _find_own_locked(tx: Connection, call: Call, devbox_id: str) -> DevboxRow:
    row = find_devbox_locked(tx, call.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if row is None:
        raise devbox_not_found(devbox_id)
    return row
