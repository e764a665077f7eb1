"""Tunnels of devboxes: opened, removed, and what their host's front is told of them.

The front keeps all of its host's tunnels in memory, and asks for what changed by a long poll whose ``after`` says
what it has taken over. So an answer here can wait until the change is in force at the front.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.calls import Call
from outgate.control.devbox_expiry import note_activity
from outgate.control.devbox_states import DevboxStatus, resume_by_request
from outgate.control.devboxes import find_own_locked
from outgate.control.enforcement import Enforcement
from outgate.control.repeats import claim
from outgate.control.services import Services
from outgate.control.transactions import write_as
from outgate.control.tunnel_input import TunnelInput, add_tunnel, check_tunnels_served, decode_tunnel
from outgate.control.wakeups import Subject, Topic
from outgate.errors import InvalidValueError
from outgate.model.tunnels import ActivityNote, TunnelDocument, TunnelFeed, TunnelRoute, WakeState
from outgate.store.devboxes import DevboxRow, find_devbox_locked, save_devbox
from outgate.store.sequence import read_seq, take_numbers
from outgate.store.tunnels import (
    HostTunnel,
    find_host_tunnels,
    find_tunnel,
    list_host_tunnels,
    remove_tunnel,
)

FEED_WAIT_S_MAX: Final = 60.0
ACTIVE_KEYS_MAX: Final = 10_000
"""Tunnels in one note of activity: as many as an account may have devboxes."""
_STARTING: Final = frozenset(
    {DevboxStatus.QUEUED, DevboxStatus.PROVISIONING, DevboxStatus.INITIALIZING, DevboxStatus.RESUMING}
)


@dataclass(frozen=True, slots=True)
class EnabledTunnel:
    """A tunnel, and whether its host's front has taken it over."""

    tunnel: TunnelDocument
    enforcement: Enforcement


async def enable_tunnel(services: Services, call: Call, devbox_id: str, given: TunnelInput) -> EnabledTunnel:
    """Open the devbox's tunnel; it serves when this returns.

    Raises NotFoundError, and InvalidValueError where tunnels are off, the devbox does not run, or has one already.
    """
    check_tunnels_served(services.settings.context.tunnel_domain)

    def enable(tx: Connection) -> tuple[DevboxRow, int]:
        row = find_own_locked(tx, call, devbox_id)
        if claim(tx, call.request, devbox_id, call.now_ms) is not None and row.tunnel is not None:
            return row, read_seq(tx)
        if row.status != DevboxStatus.RUNNING:
            message = f"Devbox {devbox_id} is {row.status}; a tunnel can be opened while it runs."
            raise InvalidValueError(message, code="devbox_not_running")
        if row.tunnel is not None:
            message = f"Devbox {devbox_id} has a tunnel already; remove it first to get another."
            raise InvalidValueError(message, code="tunnel_exists")
        seq = take_numbers(tx).seq
        return add_tunnel(tx, row, given, seq=seq, now_ms=call.now_ms), seq

    row, seq = await write_as(services, call.caller, enable)
    if row.tunnel is None:
        raise AssertionError("an enabled tunnel is there")
    return EnabledTunnel(decode_tunnel(row.tunnel), await await_front(services, row.host_id, seq))


async def disable_tunnel(services: Services, call: Call, devbox_id: str) -> Enforcement:
    """Remove the devbox's tunnel, if it has one: its connections are cut when this returns. Raises NotFoundError."""

    def disable(tx: Connection) -> tuple[str, int] | None:
        row = find_own_locked(tx, call, devbox_id)
        tunnel = find_tunnel(tx, devbox_id)
        if tunnel is None:
            return None
        seq = take_numbers(tx).seq
        remove_tunnel(tx, tunnel.key, now_ms=call.now_ms, seq=seq)
        return row.host_id, seq

    removed = await write_as(services, call.caller, disable)
    return Enforcement(1, 1) if removed is None else await await_front(services, *removed)


# The front's side


async def await_front(services: Services, host_id: str, seq: int) -> Enforcement:
    """Return when the host's front has taken over ``seq``, or after the configured wait.

    A front that does not ask this process (it is being started again, or is another api process's) is not waited
    for: while it is down it serves nobody, and it begins with everything there is.
    """
    fronts, topic = services.fronts, Topic(Subject.FRONT, host_id)
    services.wakeups.notify(Topic(Subject.TUNNELS, host_id))
    deadline_s = monotonic_s() + services.settings.enforce_wait_s_max
    with services.wakeups.watch(topic) as watch:
        while (fronts.enforced(host_id) or 0) < seq:
            left_s = deadline_s - monotonic_s()
            if left_s <= 0 or not fronts.is_present(host_id, monotonic_s()):
                return Enforcement(0, 1)
            await watch.wait(min(left_s, services.poll_s))
    return Enforcement(1, 1)


async def await_tunnels(services: Services, host_id: str, *, after: int, wait_s: float) -> TunnelFeed:
    """What the host's front must hear of, as soon as there is something after ``after``; everything when 0.

    ``after`` also says what the front has taken over.
    """
    fronts = services.fronts
    fronts.set_enforced(host_id, after)
    services.wakeups.notify(Topic(Subject.FRONT, host_id))
    deadline_s = monotonic_s() + min(wait_s, FEED_WAIT_S_MAX)
    topics = (Topic(Subject.TUNNELS, host_id), Topic(Subject.DESIRED_STATE, host_id))
    try:
        with fronts.polling(host_id), services.wakeups.watch(*topics) as watch:
            while True:
                feed = await services.database.read(lambda tx: _read_feed(tx, host_id, after))
                left_s = deadline_s - monotonic_s()
                if feed.full or feed.tunnels or feed.gone or left_s <= 0:
                    return feed
                await watch.wait(min(left_s, services.poll_s))
    finally:
        fronts.see(host_id, monotonic_s())


def _read_feed(tx: Connection, host_id: str, after: int) -> TunnelFeed:
    seq = read_seq(tx)
    is_full = after <= 0 or after > seq
    changed = list_host_tunnels(tx, host_id, after=None if is_full else after)
    return TunnelFeed(
        seq=seq,
        full=is_full,
        tunnels=tuple(_route(tunnel) for tunnel in changed if not tunnel.is_gone),
        gone=tuple(tunnel.key for tunnel in changed if tunnel.is_gone),
    )


def _route(tunnel: HostTunnel) -> TunnelRoute:
    document = decode_tunnel(tunnel.document)
    token = document.auth_token
    return TunnelRoute(
        key=tunnel.key,
        devbox_id=tunnel.devbox_id,
        account_id=tunnel.account_id,
        token_digest=None if token is None else hashlib.sha256(token.encode()).hexdigest(),
        http_keep_alive=document.http_keep_alive,
    )


async def wake_tunnel(services: Services, host_id: str, key: str, now_ms: int) -> WakeState:
    """A request came for a devbox that does not run: resume it if requests may, and say what it is doing."""

    def wake(tx: Connection) -> tuple[WakeState, DevboxRow | None]:
        found = find_host_tunnels(tx, host_id, [key])
        if not found:
            return WakeState.GONE, None
        row = find_devbox_locked(tx, found[0].account_id, found[0].devbox_id)
        if row is None or row.tunnel is None:
            return WakeState.GONE, None
        if row.status in _STARTING or row.status == DevboxStatus.RUNNING:
            # One that runs for the api and not for its host is being shut down or started at this moment.
            return WakeState.STARTING, None
        step = resume_by_request(row, now_ms) if wakes_on_http(row) else None
        if step is None:
            return WakeState.ASLEEP, None
        resumed = replace(step.row, seq=take_numbers(tx).seq)
        save_devbox(tx, resumed)
        return WakeState.STARTING, resumed

    state, resumed = await services.database.write(wake)
    if resumed is not None:
        services.wakeups.notify(Topic(Subject.DESIRED_STATE, host_id), Topic(Subject.DEVBOX, resumed.id))
    return state


def wakes_on_http(row: DevboxRow) -> bool:
    """Whether requests resume the devbox: the lifecycle's word counts before its tunnel's."""
    lifecycle = json.loads(row.launch_parameters).get("lifecycle") or {}
    by_lifecycle = (lifecycle.get("resume_triggers") or {}).get("http")
    if by_lifecycle is not None:
        return bool(by_lifecycle)
    return row.tunnel is not None and decode_tunnel(row.tunnel).wake_on_http


async def note_tunnel_activity(services: Services, host_id: str, note: ActivityNote, now_ms: int) -> None:
    """Requests came through these tunnels: their devboxes are not idle, where requests are to count."""
    keys = list(note.keys[:ACTIVE_KEYS_MAX])
    for tunnel in await services.database.read(lambda tx: find_host_tunnels(tx, host_id, keys)):
        if decode_tunnel(tunnel.document).http_keep_alive:
            note_activity(services, tunnel.devbox_id, now_ms)
