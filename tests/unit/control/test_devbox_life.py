"""What becomes of devboxes by themselves, what they start from, and where."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from outgate.control import devbox_creation, devbox_expiry, devboxes
from outgate.control.accounts import create_account
from outgate.control.builtin_policies import default_policy_id
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.configuration import DefaultPolicy
from outgate.control.devbox_creation import create_devbox
from outgate.control.devbox_expiry import end_due_devboxes, note_activity
from outgate.control.devbox_input import DevboxInput, Origin
from outgate.control.devbox_reading import get_devbox
from outgate.control.devbox_states import decode_devbox
from outgate.control.devboxes import shut_down_devbox
from outgate.control.errors import ConflictError, HostUnavailableError
from outgate.control.hosts import ensure_host, take_report
from outgate.control.policies import create_policy
from outgate.control.policy_input import PolicyInput
from outgate.control.secrets import create_secret
from outgate.control.services import Services
from outgate.control.start_images import StartImage
from outgate.errors import InvalidValueError
from outgate.model.desired import DevboxActivity, HostReport, ObservedDevbox, ObservedPhase
from outgate.store.devboxes import DevboxRow
from outgate.store.hosts import HostRow
from support.api_server import FakeGateway
from support.fake_commands import AGENT_URL

NOW_MS = 1_795_000_000_000
IDLE = {"after_idle": {"idle_time_seconds": 60, "on_idle": "suspend"}}


@pytest.fixture
def host(services: Services) -> HostRow:
    return ensure_host(services, "local", "token", NOW_MS)


@pytest.fixture
def call(services: Services) -> Call:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    return Call(Caller(made.account_id, made.key_id), NOW_MS)


async def run_devbox(services: Services, host: HostRow, call: Call, **launch: Any) -> str:
    """A devbox that runs since NOW_MS."""
    row = await create_devbox(services, call, DevboxInput(launch=launch))
    seen = ObservedDevbox(row.id, ObservedPhase.RUNNING, NOW_MS)
    await take_report(services, host, HostReport("boot", AGENT_URL, 0, devboxes=(seen,)), NOW_MS)
    return row.id


async def status_after(services: Services, call: Call, devbox_id: str, seconds: float) -> str:
    """Where the devbox is once everything that is due ``seconds`` after it began to run was done."""
    for _ in range(10):
        if not await end_due_devboxes(services, NOW_MS + int(seconds * 1000)):
            return (await get_devbox(services, call.caller, devbox_id)).status
    raise AssertionError("the same devboxes are due for ever")


def gateway_of(services: Services) -> FakeGateway:
    assert isinstance(services.gateway, FakeGateway)
    return services.gateway


def test_idle_time_counts_from_the_last_activity(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        box = await run_devbox(services, host, call, **IDLE, keep_alive_time_seconds=1)
        assert await status_after(services, call, box, 59) == "running"
        note_activity(services, box, NOW_MS + 30_000)
        note_activity(services, box, NOW_MS + 20_000)
        assert await status_after(services, call, box, 89.9) == "running"
        assert await status_after(services, call, box, 90) == "suspending"

    asyncio.run(run())


def test_a_command_keeps_a_devbox_from_being_idle_and_counts_until_its_end(
    services: Services, host: HostRow, call: Call
) -> None:
    async def run() -> None:
        box = await run_devbox(services, host, call, **IDLE)
        gateway_of(services).activity[box] = DevboxActivity(1)
        assert await status_after(services, call, box, 60) == "running"
        gateway_of(services).activity[box] = DevboxActivity(0, NOW_MS + 100_000)
        assert await status_after(services, call, box, 130) == "running"
        assert await status_after(services, call, box, 160) == "suspending"

    asyncio.run(run())


def test_a_host_that_does_not_answer_keeps_its_devboxes(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        box = await run_devbox(services, host, call, **IDLE)
        kept = await run_devbox(services, host, call, keep_alive_time_seconds=60)
        gateway_of(services).fail = True
        assert await status_after(services, call, box, 60) == "running"
        assert await status_after(services, call, kept, 60) == "shutdown", "nobody has to be asked about these"
        gateway_of(services).fail = False
        assert await status_after(services, call, box, 120) == "suspending"

    asyncio.run(run())


def test_a_snapshot_that_is_being_taken_is_not_cut_off(
    services: Services, host: HostRow, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = True
    for module in (devbox_expiry, devboxes):
        monkeypatch.setattr(module, "is_in_progress", lambda _tx, _devbox_id: taking)

    async def run() -> None:
        nonlocal taking
        box = await run_devbox(services, host, call, keep_alive_time_seconds=60)
        other = await run_devbox(services, host, call)
        assert await status_after(services, call, box, 60) == "running"
        with pytest.raises(ConflictError, match="force=true"):
            await shut_down_devbox(services, call, other, force=False)
        assert (await shut_down_devbox(services, call, other, force=True)).status == "shutdown"
        taking = False
        assert await status_after(services, call, box, 66) == "shutdown"

    asyncio.run(run())


def test_a_devbox_that_does_not_run_yet_is_not_idle(services: Services, host: HostRow, call: Call) -> None:
    async def run() -> None:
        row = await create_devbox(services, call, DevboxInput(launch=IDLE))
        assert await status_after(services, call, row.id, 61) == "provisioning"

    asyncio.run(run())


@pytest.fixture
def from_blueprint(monkeypatch: pytest.MonkeyPatch) -> Callable[[StartImage], None]:
    """Let every blueprint, and every snapshot, be this."""

    def stub(start: StartImage) -> None:
        monkeypatch.setattr(devbox_creation, "find_blueprint_start", lambda *_args, **_more: start)
        monkeypatch.setattr(devbox_creation, "find_snapshot_start", lambda *_args: start)

    return stub


async def start_from(services: Services, call: Call, origin: Origin, **more: Any) -> DevboxRow:
    return await create_devbox(services, call, DevboxInput(origin=origin, **more))


def test_a_devbox_takes_over_what_it_does_not_say(
    services: Services, host: HostRow, call: Call, from_blueprint: Callable[[StartImage], None]
) -> None:
    async def run() -> None:
        ensure_host(services, "other", "token-2", NOW_MS)
        await create_secret(services, call, "KEY", "value")
        policy = await create_policy(services, call, PolicyInput(name="p"))
        launch = {"network_policy_id": policy.id, "launch_commands": ["a"], "resource_size_request": "MEDIUM"}
        environment = {"A": "1", "B": "2", "KEY": "plain"}
        from_blueprint(
            StartImage(
                "bpt_1",
                host_id=host.id,
                blueprint_id="bpt_1",
                launch_parameters=launch,
                environment=environment,
                secrets={"C": "KEY", "D": "KEY"},
            )
        )
        row = await start_from(
            services,
            call,
            Origin(blueprint_id="bpt_1"),
            launch={"launch_commands": ["b"]},
            environment={"B": "3", "C": "4"},
            secrets={"KEY": "KEY"},
        )
        document = decode_devbox(row.document)
        assert (row.host_id, row.blueprint_id, row.policy_id) == (host.id, "bpt_1", policy.id)
        assert (document.image, document.launch_commands, document.cpu_cores) == ("bpt_1", ("b",), 2.0)
        assert document.environment == {"A": "1", "B": "3", "C": "4"}
        assert document.secrets == {"D": "KEY", "KEY": "KEY"}
        shown = json.loads(row.launch_parameters)
        assert (shown["network_policy_id"], shown["launch_commands"]) == (policy.id, ["b"])

    asyncio.run(run())


def test_whose_policy_holds(
    services: Services, host: HostRow, call: Call, from_blueprint: Callable[[StartImage], None]
) -> None:
    """Its own, else its blueprint's, else that of its snapshot's source, else the server's."""
    denying = replace(services, settings=replace(services.settings, default_policy=DefaultPolicy.DENY_ALL))

    async def run() -> None:
        own, blueprints, sources = [
            (await create_policy(services, call, PolicyInput(name=name))).id for name in ("own", "blueprint", "source")
        ]
        allow_all = default_policy_id(DefaultPolicy.ALLOW_ALL)

        async def policy_of(start: StartImage, **launch: str) -> str:
            from_blueprint(start)
            return (await start_from(denying, call, Origin(snapshot_id="snp_1"), launch=launch)).policy_id

        full = StartImage("i", policy_id=sources, launch_parameters={"network_policy_id": blueprints})
        assert await policy_of(full, network_policy_id=own) == own
        assert await policy_of(full) == blueprints
        assert await policy_of(StartImage("i", policy_id=sources)) == sources
        assert await policy_of(StartImage("i")) == default_policy_id(DefaultPolicy.DENY_ALL)
        assert await policy_of(StartImage("i", policy_id=allow_all)) == allow_all
        with pytest.raises(InvalidValueError, match="There is no network policy"):
            await policy_of(StartImage("i", policy_id="npol_" + "a" * 21))

    asyncio.run(run())


def test_a_start_whose_host_is_gone(
    services: Services, host: HostRow, call: Call, from_blueprint: Callable[[StartImage], None]
) -> None:
    from_blueprint(StartImage("snp_1", host_id="host_gone", snapshot_id="snp_1"))
    with pytest.raises(HostUnavailableError):
        asyncio.run(start_from(services, call, Origin(snapshot_id="snp_1")))
