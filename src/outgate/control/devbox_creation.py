"""New devboxes: from the stock image, from a blueprint or from a snapshot."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from outgate.control.blueprint_start import find_blueprint_start
from outgate.control.builtin_policies import BUILTIN_POLICIES, default_policy_id
from outgate.control.calls import Call
from outgate.control.devbox_input import DevboxInput, DevboxSpec, Origin, parse_devbox_input
from outgate.control.devbox_launch import LAUNCH_FIELD, LaunchSpec, merge_launch, parse_launch
from outgate.control.devbox_mounts import parse_mounts
from outgate.control.devbox_states import DevboxStatus, encode_devbox, start_transitions
from outgate.control.devboxes import find_own
from outgate.control.ids import IdPrefix
from outgate.control.placement import choose_host
from outgate.control.policy_references import find_policy_reference
from outgate.control.repeats import claim
from outgate.control.secrets import check_secrets
from outgate.control.services import Services
from outgate.control.snapshot_start import find_snapshot_start
from outgate.control.start_images import STOCK_START, StartImage
from outgate.control.transactions import write_as
from outgate.control.tunnel_input import add_tunnel, check_tunnels_served
from outgate.control.wakeups import Subject, Topic
from outgate.errors import InvalidValueError
from outgate.model.desired import DesiredPhase, DevboxDocument
from outgate.store.devboxes import DevboxRow, count_live, insert_devbox
from outgate.store.policies import lock_account
from outgate.store.sequence import take_numbers

_POLICY_FIELD: Final = f"{LAUNCH_FIELD}.network_policy_id"


async def create_devbox(services: Services, call: Call, given: DevboxInput) -> DevboxRow:
    """A new devbox. Its host is told; nothing of it runs before its policy is in force.

    Raises InvalidValueError (also for an unknown policy, blueprint, snapshot, secret or object) and
    HostUnavailableError when there is no host.
    """
    spec = parse_devbox_input(given)
    if given.tunnel is not None:
        check_tunnels_served(services.settings.context.tunnel_domain, field="tunnel")
    row = await write_as(services, call.caller, lambda tx: _create(tx, services, call, given, spec))
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id))
    return row


def _create(tx: Connection, services: Services, call: Call, given: DevboxInput, spec: DevboxSpec) -> DevboxRow:
    devbox_id = services.ids.make(IdPrefix.DEVBOX, call.now_ms)
    made = claim(tx, call.request, devbox_id, call.now_ms)
    if made is not None:
        return find_own(tx, call, made)
    lock_account(tx, call.account_id)
    _check_limit(tx, call, services.settings.devboxes_max)
    start = _find_start(tx, call, given.origin)
    launch = parse_launch(merge_launch(given.launch, start.launch_parameters))
    policy_id = _choose_policy(tx, services, call, launch, start)
    host = choose_host(tx, launch, start)
    check_secrets(tx, call.account_id, given.secrets, field="secrets")
    document = DevboxDocument(
        id=devbox_id,
        account_id=call.account_id,
        policy_id=policy_id,
        phase=DesiredPhase.RUNNING,
        image=start.image,
        environment={**_without(start.environment, given.secrets), **spec.environment},
        secrets={**_without(start.secrets, spec.environment), **given.secrets},
        username=launch.user.username,
        uid=launch.user.uid,
        mounts=parse_mounts(tx, services, call, given.mounts, devbox_id),
        launch_commands=launch.launch_commands,
        entrypoint=spec.entrypoint,
        cpu_cores=launch.resources.cpu_cores,
        memory_mib=launch.resources.memory_mib,
        suspend_commands=launch.suspend_commands,
        suspend_deadline_ms=launch.suspend_deadline_ms,
    )
    origin = _Origin(start, host.id)
    row = _make_row(call, spec, launch, origin, document, seq=take_numbers(tx).seq)
    insert_devbox(tx, row)
    if given.tunnel is not None:
        return add_tunnel(tx, row, given.tunnel, seq=row.seq, now_ms=call.now_ms)
    return row


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the devbox starts from, and where."""

    start: StartImage
    host_id: str


def _make_row(
    call: Call, spec: DevboxSpec, launch: LaunchSpec, origin: _Origin, document: DevboxDocument, *, seq: int
) -> DevboxRow:
    status = DevboxStatus.QUEUED if launch.is_flex else DevboxStatus.PROVISIONING
    idle = launch.after_idle
    lifetime_s = launch.keep_alive_s if idle is None else idle.idle_s
    return DevboxRow(
        id=document.id,
        account_id=call.account_id,
        host_id=origin.host_id,
        policy_id=document.policy_id,
        key_id=call.key_id,
        name=spec.name,
        metadata=json.dumps(spec.metadata),
        launch_parameters=json.dumps(_view_launch(launch, document.policy_id)),
        status=status.value,
        transitions=start_transitions(status, call.now_ms),
        document=encode_devbox(document),
        detail="",
        failure_reason=None,
        shutdown_reason=None,
        create_time_ms=call.now_ms,
        end_time_ms=None,
        keep_alive_s=launch.keep_alive_s,
        expire_time_ms=call.now_ms + lifetime_s * 1000,
        released=False,
        seq=seq,
        blueprint_id=origin.start.blueprint_id,
        snapshot_id=origin.start.snapshot_id,
        idle_s=None if idle is None else idle.idle_s,
        on_idle=None if idle is None else idle.on_idle.value,
    )


def _view_launch(launch: LaunchSpec, policy_id: str) -> dict[str, object]:
    """The launch parameters with the policy that holds, also one that was inherited; the server's default has no id."""
    return launch.view if policy_id in BUILTIN_POLICIES else {**launch.view, "network_policy_id": policy_id}


def _without(inherited: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What is inherited under a name that the devbox gives to something else is not."""
    return {name: value for name, value in inherited.items() if name not in own}


def _check_limit(tx: Connection, call: Call, devboxes_max: int) -> None:
    if count_live(tx, call.account_id) >= devboxes_max:
        message = f"The account already has {devboxes_max} live devboxes, the most it may have; shut one down first."
        raise InvalidValueError(message, code="devbox_limit")


def _find_start(tx: Connection, call: Call, origin: Origin) -> StartImage:
    if origin.snapshot_id is not None:
        return find_snapshot_start(tx, call, origin.snapshot_id)
    if origin.blueprint_id is None and origin.blueprint_name is None:
        return STOCK_START
    return find_blueprint_start(tx, call, blueprint_id=origin.blueprint_id, blueprint_name=origin.blueprint_name)


def _choose_policy(tx: Connection, services: Services, call: Call, launch: LaunchSpec, start: StartImage) -> str:
    """Its own, else its blueprint's, else that of its snapshot's source, else the server's (design decision 16)."""
    if launch.network_policy_id is not None:
        return find_policy_reference(tx, call, launch.network_policy_id, field=_POLICY_FIELD)
    if start.policy_id is None:
        return default_policy_id(services.settings.default_policy)
    if start.policy_id in BUILTIN_POLICIES:
        return start.policy_id
    return find_policy_reference(tx, call, start.policy_id, field=_POLICY_FIELD)
