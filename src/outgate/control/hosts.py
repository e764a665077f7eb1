"""Hosts: what one should do, and what it says it does."""

from dataclasses import dataclass, replace

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.blueprint_states import observe_build
from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.devbox_rendering import render_devbox
from outgate.control.devbox_states import observe
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policy_documents import decode_policy
from outgate.control.secrets_at_rest import digest_secret
from outgate.control.services import Services
from outgate.control.wakeups import Subject, Topic
from outgate.model.desired import DesiredState, HostCapacity, HostReport, PolicyDocument
from outgate.store.blueprints import (
    find_host_blueprints_locked,
    list_builds_for_host,
    list_changed_build_policies,
    save_blueprint,
)
from outgate.store.devboxes import find_host_devboxes_locked, list_changed_policies, list_for_host, save_devbox
from outgate.store.hosts import (
    HostRow,
    find_host_by_name,
    insert_host,
    replace_host_token,
    store_capacity,
    store_report,
    touch_host,
)
from outgate.store.policies import read_documents
from outgate.store.sequence import read_seq, take_numbers

WAIT_S_MAX = 60.0
"""Longer than any agent asks for; bounds what an open request may hold."""
SEEN_EVERY_MS = 5_000
"""A host's last sign of life is stored this coarsely, so that asking often does not write often."""


def ensure_host(services: Services, name: str, token: str, now_ms: int) -> HostRow:
    """The host of that name, reached by ``token`` from now on. May be called again, also with a new token."""
    secret = digest_secret(token)

    def ensure(tx: Connection) -> HostRow:
        row = find_host_by_name(tx, name)
        if row is not None:
            replace_host_token(tx, row.id, lookup=secret.lookup, digest=secret.digest)
            return replace(row, lookup=secret.lookup, digest=secret.digest)
        row = HostRow(
            id=services.ids.make(IdPrefix.HOST, now_ms),
            name=name,
            lookup=secret.lookup,
            digest=secret.digest,
            url=None,
            boot_id=None,
            enforced=0,
            ready=False,
            warnings="[]",
            seen_time_ms=0,
        )
        insert_host(tx, row)
        return row

    return services.database.write_now(ensure)


async def await_desired_state(
    services: Services, host: HostRow, *, after: int, wait_s: float, now_ms: int
) -> DesiredState:
    """What changed for the host after sequence ``after``, as soon as something did; everything when 0.

    After ``wait_s`` it comes back without changes, with the sequence up to which there are none.
    """
    presence = services.presence
    deadline_s = monotonic_s() + min(wait_s, WAIT_S_MAX)
    if now_ms - host.seen_time_ms > SEEN_EVERY_MS:
        await services.database.write(lambda tx: touch_host(tx, host.id, now_ms=now_ms))
    try:
        with presence.polling(host.id), services.wakeups.watch(Topic(Subject.DESIRED_STATE, host.id)) as watch:
            while True:
                state = await services.database.read(lambda tx: _read_desired_state(tx, services, host.id, after))
                left_s = deadline_s - monotonic_s()
                if _says_something(state) or left_s <= 0:
                    return state
                await watch.wait(min(left_s, services.poll_s))
    finally:
        presence.see(host.id, monotonic_s())


def _says_something(state: DesiredState) -> bool:
    return state.full or bool(state.policies or state.devboxes or state.forgotten)


def _read_desired_state(tx: Connection, services: Services, host_id: str, after: int) -> DesiredState:
    seq = read_seq(tx)
    # A host that is ahead of the store has seen another store (restored from a backup, say): tell it everything.
    is_full = after <= 0 or after > seq
    since = None if is_full else after
    changed = [*list_for_host(tx, host_id, after=since), *list_builds_for_host(tx, host_id, after=since)]
    current = [devbox for devbox in changed if not devbox.released]
    policy_ids = {devbox.policy_id for devbox in current}
    if not is_full:
        policy_ids.update(list_changed_policies(tx, host_id, after=after))
        policy_ids.update(list_changed_build_policies(tx, host_id, after=after))
    return DesiredState(
        revision=seq,
        full=is_full,
        policies=_read_policies(tx, policy_ids),
        devboxes=tuple(render_devbox(tx, services, devbox.document) for devbox in current),
        forgotten=tuple(devbox.id for devbox in changed if devbox.released),
    )


def find_wanted(tx: Connection, host_id: str, *, enforced: int) -> int:
    """The revision that the host should enforce: the newest, or ``enforced`` when nothing newer concerns it."""
    seq = read_seq(tx)
    if enforced <= 0 or enforced > seq:
        return seq
    has_news = (
        list_for_host(tx, host_id, after=enforced)
        or list_builds_for_host(tx, host_id, after=enforced)
        or list_changed_policies(tx, host_id, after=enforced)
        or list_changed_build_policies(tx, host_id, after=enforced)
    )
    return seq if has_news else enforced


def _read_policies(tx: Connection, policy_ids: set[str]) -> tuple[PolicyDocument, ...]:
    if not policy_ids:
        return ()
    builtin = [BUILTIN_POLICIES[policy_id] for policy_id in policy_ids if policy_id in BUILTIN_POLICIES]
    stored = read_documents(tx, sorted(policy_ids - BUILTIN_POLICIES.keys()))
    documents = [*builtin, *(decode_policy(text) for text in stored.values())]
    return tuple(sorted(documents, key=lambda document: document.number))


def _note_capacity(tx: Connection, host: HostRow, capacity: HostCapacity | None) -> None:
    known = (host.architecture, host.cpu_cores, host.memory_mib)
    if capacity is None or known == (capacity.architecture, capacity.cpu_cores, capacity.memory_mib):
        return
    store_capacity(
        tx,
        host.id,
        architecture=capacity.architecture,
        cpu_cores=capacity.cpu_cores,
        memory_mib=capacity.memory_mib,
    )


@dataclass(frozen=True, slots=True)
class _Noted:
    devbox_ids: tuple[str, ...]
    has_news: bool


async def take_report(services: Services, host: HostRow, report: HostReport, now_ms: int) -> None:
    """Believe the host: what it enforces, and where its devboxes are."""
    enforced = Topic(Subject.ENFORCED, host.id)
    services.presence.see(host.id, monotonic_s())
    services.presence.set_enforced(host.id, report.enforced)
    said = structs.replace(report, enforced=0)
    if not services.database.is_shared:
        # What is enforced is so whether or not it is stored: updates need not wait for this commit, nor have one
        # each. A process that starts on an older word hears of it again before any update is answered.
        services.wakeups.notify(enforced)
        if not report.devboxes and services.presence.is_stored(host.id, said, now_ms):
            return
    noted = await services.database.write(lambda tx: _note_report(tx, host, report, now_ms))
    services.presence.note_stored(host.id, structs.replace(said, devboxes=()), now_ms)
    services.wakeups.notify(enforced, *(Topic(Subject.DEVBOX, devbox_id) for devbox_id in noted.devbox_ids))
    if noted.has_news:
        services.wakeups.notify(Topic(Subject.DESIRED_STATE, host.id))


def _note_report(tx: Connection, host: HostRow, report: HostReport, now_ms: int) -> _Noted:
    store_report(
        tx,
        host.id,
        url=report.url,
        boot_id=report.boot_id,
        enforced=report.enforced,
        ready=report.ready,
        warnings=msgspec.json.encode(report.warnings).decode(),
        now_ms=now_ms,
    )
    _note_capacity(tx, host, report.capacity)
    observed = {devbox.id: devbox for devbox in report.devboxes}
    if not observed:
        return _Noted((), has_news=False)
    ids = sorted(observed)
    steps = [
        step
        for row in find_host_devboxes_locked(tx, host.id, ids)
        if (step := observe(row, observed[row.id], now_ms)) is not None
    ]
    built = [
        built_step
        for row in find_host_blueprints_locked(tx, host.id, [name for name in ids if is_id(IdPrefix.BLUEPRINT, name)])
        if (built_step := observe_build(row, observed[row.id], now_ms)) is not None
    ]
    has_news = any(step.is_news for step in steps) or any(build.is_news for build in built)
    seq = take_numbers(tx).seq if has_news else None
    for step in steps:
        save_devbox(tx, replace(step.row, seq=seq) if step.is_news and seq is not None else step.row)
    for build in built:
        save_blueprint(tx, replace(build.row, seq=seq) if build.is_news and seq is not None else build.row)
    return _Noted(tuple(step.row.id for step in steps), has_news)
