"""Desired state: everything at first, then what changed; and what a host's word does."""

import asyncio
import time
from dataclasses import replace

import pytest

from outgate.control.accounts import create_account
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.configuration import ApiSettings, DefaultPolicy
from outgate.control.devbox_creation import create_devbox
from outgate.control.devbox_input import DevboxInput
from outgate.control.devbox_reading import get_devbox
from outgate.control.devboxes import keep_devbox_alive, shut_down_devbox
from outgate.control.enforcement import Enforcement, await_enforcement
from outgate.control.errors import HostUnavailableError
from outgate.control.health import observe_health
from outgate.control.hosts import await_desired_state, ensure_host, take_report
from outgate.control.policies import create_policy, update_policy
from outgate.control.policy_input import CidrInput, PolicyInput
from outgate.control.services import Services
from outgate.control.sweeper import sweep
from outgate.model.desired import DesiredPhase, HostReport, HostWarning, ObservedDevbox, ObservedPhase
from outgate.store.hosts import HostRow

NOW_MS = 1_795_000_000_000


@pytest.fixture
def host(services: Services) -> HostRow:
    return ensure_host(services, "local", "token", NOW_MS)


@pytest.fixture
def call(services: Services) -> Call:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    return Call(Caller(made.account_id, made.key_id), NOW_MS)


def under(policy_id: str | None) -> DevboxInput:
    return DevboxInput(launch={} if policy_id is None else {"network_policy_id": policy_id})


def report(enforced: int, *devboxes: ObservedDevbox, ready: bool = True) -> HostReport:
    return HostReport("boot", "unix:/agent.sock", enforced, ready, devboxes)


async def desired(services: Services, host: HostRow, after: int, wait_s: float = 0.0):  # type: ignore[no-untyped-def] # noqa: ANN201 - the state; its type is long
    return await await_desired_state(services, host, after=after, wait_s=wait_s, now_ms=NOW_MS)


def test_a_host_is_told_everything_then_what_changed(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        policy = await create_policy(services, call, PolicyInput(name="p", allowed_hostnames=("a.example",)))
        await create_policy(services, call, PolicyInput(name="unused"))
        box = await create_devbox(services, call, under(policy.id))

        full = await desired(services, host, 0)
        assert full.full
        assert [p.id for p in full.policies] == [policy.id]
        assert [(d.id, d.phase, d.policy_id) for d in full.devboxes] == [(box.id, DesiredPhase.RUNNING, policy.id)]

        nothing = await desired(services, host, full.revision)
        assert (nothing.full, nothing.policies, nothing.devboxes, nothing.revision) == (False, (), (), full.revision)

        await take_report(services, host, report(0), NOW_MS)
        change = PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24"),))
        short = replace(services, settings=replace(services.settings, enforce_wait_s_max=0.0))
        await update_policy(short, call, policy.id, change)
        delta = await desired(services, host, full.revision)
        assert not delta.full
        assert [(p.id, p.revision, len(p.allowed_cidrs)) for p in delta.policies] == [(policy.id, 2, 1)]
        assert delta.devboxes == ()

    asyncio.run(run())


def test_a_host_ahead_of_the_store_is_told_everything(services: Services, host: HostRow) -> None:
    assert asyncio.run(desired(services, host, 10_000)).full


def test_an_ended_devbox_is_told_until_its_host_has_let_go_of_it(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        box = await create_devbox(services, call, under(None))
        started = await desired(services, host, 0)
        assert [p.id for p in started.policies] == ["npol_default_allow_all"]
        await shut_down_devbox(services, call, box.id, force=False)

        ended = await desired(services, host, started.revision)
        assert [(d.id, d.phase) for d in ended.devboxes] == [(box.id, DesiredPhase.SHUTDOWN)]
        again = await desired(services, host, 0)
        assert [d.id for d in again.devboxes] == [box.id]

        gone = ObservedDevbox(box.id, ObservedPhase.SHUTDOWN, NOW_MS)
        await take_report(services, host, report(ended.revision, gone), NOW_MS)
        forgotten = await desired(services, host, ended.revision)
        assert (forgotten.devboxes, forgotten.forgotten) == ((), (box.id,))
        assert (await desired(services, host, 0)).devboxes == ()

    asyncio.run(run())


def test_a_wait_ends_when_something_changes_for_this_host(
    services: Services, host: HostRow, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Services, "poll_s", 1000.0)  # what wakes it is the change

    async def run() -> None:
        after = (await desired(services, host, 0)).revision
        waiting = asyncio.ensure_future(desired(services, host, after, 1000.0))
        await asyncio.sleep(0.05)
        await create_policy(services, call, PolicyInput(name="concerns no host"))
        assert not waiting.done()
        box = await create_devbox(services, call, under(None))
        state = await waiting
        assert [d.id for d in state.devboxes] == [box.id]

    asyncio.run(run())


def test_an_update_waits_for_its_hosts_and_says_how_many_enforce(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        policy = await create_policy(services, call, PolicyInput(name="p"))
        for _ in range(3):
            await create_devbox(services, call, under(policy.id))
        await take_report(services, host, report(0), NOW_MS)

        async def enforce_later() -> None:
            state = await desired(services, host, (await desired(services, host, 0)).revision, 5.0)
            assert [p.id for p in state.policies] == [policy.id]
            await take_report(services, host, report(state.revision), NOW_MS)

        later = asyncio.ensure_future(enforce_later())
        await asyncio.sleep(0.05)
        updated = await update_policy(services, call, policy.id, PolicyInput(allow_all=True))
        assert updated.enforcement == Enforcement(3, 3)
        await later

    asyncio.run(run())


def test_an_update_that_no_host_enforces_is_answered_in_time(services: Services, host: HostRow, call: Call) -> None:
    wait_s_max = 0.3

    async def run(services: Services) -> float:
        policy = await create_policy(services, call, PolicyInput(name="p"))
        await create_devbox(services, call, under(policy.id))
        started = time.monotonic()
        updated = await update_policy(services, call, policy.id, PolicyInput(allow_all=True))
        assert updated.enforcement == Enforcement(0, 1)
        return time.monotonic() - started

    settings = replace(services.settings, enforce_wait_s_max=wait_s_max)
    assert asyncio.run(run(replace(services, settings=settings))) >= wait_s_max


def test_some_hosts_enforce_and_some_do_not(services: Services, host: HostRow) -> None:
    other = ensure_host(services, "other", "token-b", NOW_MS)
    services = replace(services, settings=replace(services.settings, enforce_wait_s_max=0.1))

    async def run() -> Enforcement:
        await take_report(services, host, report(7), NOW_MS)
        await take_report(services, other, report(6), NOW_MS)
        return await await_enforcement(services, 7, {host.id: 2, other.id: 5})

    assert asyncio.run(run()) == Enforcement(2, 7)


def test_what_a_host_enforces_is_found_in_the_store_after_a_restart(services: Services, host: HostRow) -> None:
    async def run() -> Enforcement:
        await take_report(services, host, report(7), NOW_MS)
        settings = ApiSettings(enforce_wait_s_max=0.2)
        restarted = Services(settings, services.database, services.gateway, services.keys, services.objects)
        return await await_enforcement(restarted, 7, {host.id: 1})

    assert asyncio.run(run()) == Enforcement(1, 1)


def test_a_host_cannot_speak_for_another_hosts_devboxes(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> str:
        box = await create_devbox(services, call, under(None))
        other = ensure_host(services, "other", "token-b", NOW_MS)
        lie = ObservedDevbox(box.id, ObservedPhase.FAILURE, NOW_MS)
        await take_report(services, other, report(1, lie), NOW_MS)
        return (await get_devbox(services, call.caller, box.id)).status

    assert asyncio.run(run()) == "provisioning"


@pytest.mark.parametrize(
    ("default", "policy_id"),
    [
        (DefaultPolicy.ALLOW_ALL, "npol_default_allow_all"),
        (DefaultPolicy.DENY_ALL, "npol_default_deny_all"),
    ],
)
def test_a_devbox_without_a_policy_gets_the_default(
    services: Services, host: HostRow, call: Call, default: DefaultPolicy, policy_id: str
) -> None:
    services = replace(services, settings=ApiSettings(default_policy=default))

    async def run() -> None:
        await create_devbox(services, call, under(None))
        state = await desired(services, host, 0)
        assert [(p.id, p.allow_all) for p in state.policies] == [(policy_id, default is DefaultPolicy.ALLOW_ALL)]
        assert state.devboxes[0].policy_id == policy_id

    asyncio.run(run())


def test_without_a_host_there_are_no_devboxes(services: Services, call: Call) -> None:
    with pytest.raises(HostUnavailableError):
        asyncio.run(create_devbox(services, call, under(None)))


def test_the_emptiest_ready_host_is_chosen(services: Services, host: HostRow, call: Call) -> None:
    other = ensure_host(services, "other", "token-b", NOW_MS)

    async def run() -> list[str]:
        await take_report(services, host, report(1, ready=False), NOW_MS)
        await take_report(services, other, report(1), NOW_MS)
        first = [(await create_devbox(services, call, under(None))).host_id for _ in range(2)]
        await take_report(services, host, report(1), NOW_MS)
        return first + [(await create_devbox(services, call, under(None))).host_id for _ in range(2)]

    assert asyncio.run(run()) == [other.id, other.id, host.id, host.id]


def test_a_devbox_ends_when_its_time_is_up_and_not_before(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        given = DevboxInput(launch={"keep_alive_time_seconds": 10})
        box, kept = [await create_devbox(services, call, given) for _ in range(2)]
        await keep_devbox_alive(services, replace(call, now_ms=NOW_MS + 5_000), kept.id)
        await sweep(services, NOW_MS + 9_999, is_cleaning_due=False)
        assert (await get_devbox(services, call.caller, box.id)).status == "provisioning"
        await sweep(services, NOW_MS + 10_000, is_cleaning_due=True)
        ended = await get_devbox(services, call.caller, box.id)
        assert (ended.status, ended.shutdown_reason) == ("shutdown", "keep_alive_timeout")
        assert (await get_devbox(services, call.caller, kept.id)).status == "provisioning"
        await sweep(services, NOW_MS + 15_000, is_cleaning_due=False)
        assert (await get_devbox(services, call.caller, kept.id)).status == "shutdown"

    asyncio.run(run())


def test_health_says_what_is_wrong(services: Services, host: HostRow) -> None:
    async def run() -> None:
        assert (await observe_health(services, NOW_MS)).problem == (
            "No host enforces: the agent of host 'local' is not connected"
        )
        await take_report(services, host, report(1, ready=False), NOW_MS)
        assert (await observe_health(services, NOW_MS)).problem == (
            "No host enforces: the agent of host 'local' does not enforce yet"
        )
        warned = HostReport("boot", "unix:/a", 1, True, (), (HostWarning("drift", "repaired"),))
        await take_report(services, host, warned, NOW_MS)
        health = await observe_health(services, NOW_MS)
        assert health.problem is None
        assert health.hosts[0].warnings == (HostWarning("drift", "repaired"),)

    asyncio.run(run())


def test_health_without_hosts(services: Services) -> None:
    assert asyncio.run(observe_health(services, NOW_MS)).problem == "There is no host yet; start an agent."
