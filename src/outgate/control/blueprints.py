"""Blueprints: create, delete, end what is overdue. (Reading them is in ``blueprint_reading``.)"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from outgate.control.blueprint_input import BlueprintInput, BlueprintSpec, parse_blueprint_input
from outgate.control.blueprint_start import find_blueprint_start
from outgate.control.blueprint_states import BlueprintStatus, delete_blueprint_row, fail_build, is_running
from outgate.control.builtin_policies import default_policy_id
from outgate.control.calls import Call
from outgate.control.dependents import Dependents, refuse_while_used
from outgate.control.devbox_mounts import ObjectMountInput, parse_mounts
from outgate.control.devbox_states import encode_devbox
from outgate.control.errors import NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.placement import choose_host
from outgate.control.policy_references import find_policy_reference
from outgate.control.repeats import claim_new, unless_deleted
from outgate.control.secrets import check_secrets
from outgate.control.services import Services
from outgate.control.start_images import STOCK_START, StartImage
from outgate.control.transactions import write_as
from outgate.control.wakeups import Subject, Topic
from outgate.errors import InvalidValueError
from outgate.model.desired import BuildDocument, DesiredPhase, DevboxDocument, ObjectForm, ObjectMountDocument
from outgate.store.blueprints import (
    BlueprintRow,
    count_blueprints,
    count_running_builds,
    find_blueprint,
    find_blueprint_locked,
    forget_log,
    insert_blueprint,
    list_builds_on,
    list_overdue_builds,
    save_blueprint,
)
from outgate.store.devboxes import list_live_of_blueprint
from outgate.store.policies import lock_account
from outgate.store.sequence import take_numbers
from outgate.store.snapshots import list_snapshots_of_blueprint

OVERDUE_BATCH_MAX: Final = 100
_ATTEMPTS: Final = 3
"""A build that its host's agent broke off is begun anew, at most twice (see :mod:`outgate.agent.reconcile`)."""
_SILENCE_MS: Final = 3600 * 1000
"""On top of the time limit: waiting for a place, and a host that is down for a while."""


async def create_blueprint(services: Services, call: Call, given: BlueprintInput) -> BlueprintRow:
    """A new blueprint, ``queued``. Its host is told; nothing of it runs before its build's policy is in force.

    Raises InvalidValueError (also for an unknown policy, base, object or secret) and HostUnavailableError.
    """
    spec = parse_blueprint_input(given)
    row = await write_as(services, call.caller, lambda tx: _create(tx, services, call, given, spec))
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id))
    return row


def _create(tx: Connection, services: Services, call: Call, given: BlueprintInput, spec: BlueprintSpec) -> BlueprintRow:
    blueprint_id = services.ids.make(IdPrefix.BLUEPRINT, call.now_ms)
    known = claim_new(
        tx,
        call.request,
        blueprint_id,
        call.now_ms,
        lambda made: unless_deleted(find_blueprint(tx, call.account_id, made)),
    )
    if known is not None:
        return known
    lock_account(tx, call.account_id)
    _check_limits(tx, services, call)
    policy_id = _find_policy(tx, call, given.network_policy_id, "network_policy_id")
    launch_policy_id = _find_policy(tx, call, spec.launch.network_policy_id, "launch_parameters.network_policy_id")
    check_secrets(tx, call.account_id, given.secrets, field="secrets")
    base = _find_base(tx, call, given)
    if given.context_object_id is not None:
        _check_context(tx, services, call, given.context_object_id, blueprint_id)
    host = choose_host(tx, spec.launch, base)
    document = DevboxDocument(
        id=blueprint_id,
        account_id=call.account_id,
        policy_id=policy_id or default_policy_id(services.settings.default_policy),
        phase=DesiredPhase.RUNNING,
        image=base.image,
        username=spec.launch.user.username,
        uid=spec.launch.user.uid,
        cpu_cores=spec.launch.resources.cpu_cores,
        memory_mib=spec.launch.resources.memory_mib,
        secrets=dict(given.secrets),
        mounts=parse_mounts(tx, services, call, given.mounts, blueprint_id),
        build=BuildDocument(
            dockerfile=given.dockerfile,
            build_args=dict(given.build_args),
            context_object_id=given.context_object_id,
            setup_commands=given.setup_commands,
            time_limit_s=services.settings.build_s_max,
        ),
    )
    row = BlueprintRow(
        id=blueprint_id,
        account_id=call.account_id,
        host_id=host.id,
        policy_id=document.policy_id,
        launch_policy_id=launch_policy_id,
        base_blueprint_id=base.blueprint_id,
        key_id=call.key_id,
        name=spec.name,
        parameters=json.dumps(given.parameters),
        metadata=json.dumps(spec.metadata),
        status=BlueprintStatus.QUEUED.value,
        document=encode_devbox(document),
        detail="",
        failure_reason=None,
        create_time_ms=call.now_ms,
        finish_time_ms=None,
        deadline_ms=call.now_ms + services.settings.build_s_max * 1000 * _ATTEMPTS + _SILENCE_MS,
        delete_time_ms=None,
        released=False,
        seq=take_numbers(tx).seq,
    )
    insert_blueprint(tx, row)
    return row


def _check_limits(tx: Connection, services: Services, call: Call) -> None:
    blueprints_max, builds_max = services.settings.blueprints_max, services.settings.builds_max
    if count_blueprints(tx, call.account_id) >= blueprints_max:
        message = f"The account already has {blueprints_max} blueprints, the most it may have; delete one first."
        raise InvalidValueError(message, code="blueprint_limit")
    if count_running_builds(tx, call.account_id) >= builds_max:
        message = f"The account already has {builds_max} builds running, the most it may have; let one of them end."
        raise InvalidValueError(message, code="build_limit")


def _find_policy(tx: Connection, call: Call, wanted: str | None, field: str) -> str | None:
    return None if wanted is None else find_policy_reference(tx, call, wanted, field=field)


def _find_base(tx: Connection, call: Call, given: BlueprintInput) -> StartImage:
    if given.base_blueprint_id is None and given.base_blueprint_name is None:
        return STOCK_START
    return find_blueprint_start(
        tx,
        call,
        blueprint_id=given.base_blueprint_id,
        blueprint_name=given.base_blueprint_name,
        field_prefix="base_",
    )


def _check_context(tx: Connection, services: Services, call: Call, object_id: str, blueprint_id: str) -> None:
    wanted = ObjectMountInput("build_context", object_id, "context")
    (context,) = parse_mounts(tx, services, call, (wanted,), blueprint_id)
    if not isinstance(context, ObjectMountDocument) or context.form not in (ObjectForm.TGZ, ObjectForm.FILE):
        message = f"Object {object_id} is another kind of archive; a build context is a tgz archive."
        raise InvalidValueError(message, field="build_context.object_id")


async def delete_blueprint(services: Services, call: Call, blueprint_id: str) -> None:
    """Delete a blueprint; a build that runs is cancelled. Does nothing when it is deleted already.

    Raises NotFoundError, and InvalidValueError while devboxes, snapshots or builds depend on it.
    """

    def delete(tx: Connection) -> BlueprintRow:
        row = _find_own_locked(tx, call, blueprint_id)
        if row.delete_time_ms is not None:
            return row
        _check_unused(tx, row)
        deleted = replace(delete_blueprint_row(row, call.now_ms), seq=take_numbers(tx).seq)
        save_blueprint(tx, deleted)
        forget_log(tx, row.id)
        return deleted

    row = await write_as(services, call.caller, delete)
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id))


def _check_unused(tx: Connection, row: BlueprintRow) -> None:
    dependents = (
        Dependents(list_live_of_blueprint(tx, row.id), "devbox", "devboxes", "shut them down"),
        Dependents(list_snapshots_of_blueprint(tx, row.id), "snapshot", "snapshots", "delete them"),
        Dependents(list_builds_on(tx, row.id), "running build", "running builds", "delete their blueprints"),
    )
    refuse_while_used(f"Blueprint {row.id}", dependents, code="blueprint_in_use")


async def end_overdue_builds(services: Services, now_ms: int) -> int:
    """Fail builds whose host has been silent for too long; how many (at most OVERDUE_BATCH_MAX)."""
    overdue = await services.database.read(lambda tx: list_overdue_builds(tx, now_ms=now_ms, limit=OVERDUE_BATCH_MAX))
    for row in overdue:
        if await services.database.write(_fail_overdue(row, now_ms)):
            services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id))
    return len(overdue)


def _fail_overdue(listed: BlueprintRow, now_ms: int) -> Callable[[Connection], bool]:
    def fail(tx: Connection) -> bool:
        row = find_blueprint_locked(tx, listed.account_id, listed.id)
        if row is None or not is_running(row):
            return False
        step = fail_build(row, "Nothing was heard of the build for too long.", now_ms)
        save_blueprint(tx, replace(step.row, seq=take_numbers(tx).seq))
        return True

    return fail


def blueprint_not_found(blueprint_id: str) -> NotFoundError:
    """The refusal for ids that name no blueprint of the caller's."""
    shown = blueprint_id if is_id(IdPrefix.BLUEPRINT, blueprint_id) else repr(blueprint_id[:80])
    return NotFoundError(f"Blueprint {shown} not found.", code="blueprint_not_found")


def _find_own_locked(tx: Connection, call: Call, blueprint_id: str) -> BlueprintRow:
    is_one = is_id(IdPrefix.BLUEPRINT, blueprint_id)
    row = find_blueprint_locked(tx, call.account_id, blueprint_id) if is_one else None
    if row is None:
        raise blueprint_not_found(blueprint_id)
    return row
