"""The official Python client, unchanged: generated client and object layer, blocking and asyncio."""

import asyncio
import time

import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloop, AsyncRunloopSDK, Runloop, RunloopSDK

from support.api_server import ApiServer


def test_the_five_operations(client: Runloop) -> None:
    created = client.network_policies.create(
        name="p",
        description="d",
        allowed_hostnames=["GitHub.com", "*.github.com"],
        allowed_cidrs=[{"cidr": "192.0.2.0/24", "ports": [{"port": 443, "protocol": "TCP"}]}],
    )
    assert created.id.startswith("npol_")
    assert created.egress.allowed_hostnames == ["GitHub.com", "*.github.com"]
    assert created.egress.allowed_cidrs[0].cidr == "192.0.2.0/24"
    ports = created.egress.allowed_cidrs[0].ports
    assert ports is not None
    assert (ports[0].port, ports[0].end_port, ports[0].protocol) == (443, None, "TCP")

    assert client.network_policies.retrieve(created.id) == created
    assert [policy.id for policy in client.network_policies.list()] == [created.id]

    updated = client.network_policies.update(created.id, allowed_hostnames=["pypi.org"], description=None)
    assert (updated.egress.allowed_hostnames, updated.description) == (["pypi.org"], "d")
    assert updated.egress.allowed_cidrs == created.egress.allowed_cidrs
    assert client.network_policies.update(created.id) == updated

    assert client.network_policies.delete(created.id) == updated
    with pytest.raises(runloop_api_client.NotFoundError) as caught:
        client.network_policies.retrieve(created.id)
    assert caught.value.body["message"] == f"NetworkPolicy {created.id} not found."  # type: ignore[index] # JSON


def test_the_client_pages_through_all_policies(client: Runloop) -> None:
    made = [client.network_policies.create(name=f"p{n}").id for n in range(7)]
    assert [policy.id for policy in client.network_policies.list(limit=3)] == made[::-1]
    found = client.network_policies.list(search="p3", include_total_count=True)
    assert ([policy.id for policy in found.network_policies], found.total_count) == ([made[3]], 1)


def test_refusals_come_at_once_as_the_right_exception(client: Runloop) -> None:
    client.network_policies.create(name="p")
    started = time.monotonic()
    with pytest.raises(runloop_api_client.ConflictError, match="already exists"):
        client.network_policies.create(name="p")
    with pytest.raises(runloop_api_client.BadRequestError, match="allowed_hostnames\\[0\\]"):
        client.network_policies.create(name="q", allowed_hostnames=["https://x"])
    with pytest.raises(runloop_api_client.AuthenticationError):
        client.with_options(bearer_token="wrong").network_policies.list()
    # The client would repeat a plain 409 for 25 seconds.
    assert time.monotonic() - started < 20


def test_a_caller_may_choose_the_request_id(client: Runloop) -> None:
    first = client.network_policies.create(name="p", idempotency_key="p")
    assert client.network_policies.create(name="p", idempotency_key="p").id == first.id
    client.network_policies.delete(first.id)
    assert client.network_policies.create(name="p", idempotency_key="p").id != first.id


def test_accounts(client: Runloop) -> None:
    me = client.accounts.me()
    assert me.id.startswith("acct_")
    assert me.account_status == "ACCOUNT_STATUS_ENABLED"


def test_the_object_layer_from_policy_to_command(sdk: RunloopSDK, server: ApiServer) -> None:
    policy = sdk.network_policy.create(name="p", allowed_hostnames=["github.com"])
    with sdk.devbox.create(
        name="box", metadata={"k": "v"}, launch_parameters={"network_policy_id": policy.id}
    ) as devbox:
        info = devbox.get_info()
        assert (info.status, info.name, info.metadata) == ("running", "box", {"k": "v"})
        assert info.launch_parameters.network_policy_id == policy.id
        assert server.agent.devboxes[devbox.id].policy_id == policy.id

        result = devbox.cmd.exec("echo out; echo err >&2; exit 3")
        assert (result.exit_code, result.stdout(), result.stderr()) == (3, "out\n", "err\n")
        execution = devbox.cmd.exec_async("sleep 0.3; echo done")
        assert execution.get_state().status in ("running", "completed")
        assert execution.result().stdout() == "done\n"
        long = devbox.cmd.exec_async("sleep 60")
        long.kill()
        assert long.get_state().status == "completed"

        policy.update(allowed_hostnames=[])
        assert server.agent.policies[policy.id].allowed_hostnames == ()
        with pytest.raises(runloop_api_client.BadRequestError, match="in use"):
            policy.delete()
        devbox.keep_alive()
        assert [box.id for box in sdk.devbox.list()] == [devbox.id]
        again = sdk.devbox.from_id(devbox.id)
        assert again.get_info().status == "running"
    assert again.get_info().status == "shutdown"
    assert again.get_info().shutdown_reason == "api_shutdown"
    policy.delete()
    assert sdk.network_policy.list() == []


def test_updates_of_a_devbox_and_commands_that_are_sent_twice(client: Runloop) -> None:
    box = client.devboxes.create_and_await_running()
    assert client.devboxes.update(box.id, name="n").name == "n"
    done = client.devboxes.execute(box.id, command="echo $$", command_id="0192f0c1-0000-7000-8000-000000000000")
    same = client.devboxes.execute(box.id, command="echo $$", command_id="0192f0c1-0000-7000-8000-000000000000")
    assert done.stdout
    assert same == done
    with pytest.deprecated_call():
        assert client.devboxes.execute_sync(box.id, command="exit 4").exit_status == 4
    assert client.devboxes.shutdown(box.id).status == "shutdown"


def test_a_devbox_under_a_policy_that_is_not_there(client: Runloop) -> None:
    with pytest.raises(runloop_api_client.BadRequestError, match="There is no network policy"):
        client.devboxes.create(launch_parameters={"network_policy_id": "npol_" + "0" * 21})
    assert list(client.devboxes.list()) == []


def test_asyncio(server: ApiServer, api_key: str) -> None:
    async def run() -> None:
        async with AsyncRunloop(base_url=server.base_url, bearer_token=api_key) as client:
            made = await asyncio.gather(*(client.network_policies.create(name=f"p{n}") for n in range(8)))
            listed = [policy.id async for policy in client.network_policies.list(limit=3)]
            assert sorted(listed) == sorted(policy.id for policy in made)
            updated = await client.network_policies.update(made[0].id, allow_all=True)
            assert updated.egress.allow_all
            assert updated.egress.allow_devbox_to_devbox
            for policy in made:
                assert (await client.network_policies.delete(policy.id)).id == policy.id

    asyncio.run(run())


def test_the_object_layer_with_asyncio(server: ApiServer, api_key: str) -> None:
    async def run() -> None:
        sdk = AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key)
        policy = await sdk.network_policy.create(name="p")
        async with await sdk.devbox.create(launch_parameters={"network_policy_id": policy.id}) as devbox:
            result = await devbox.cmd.exec("echo hello")
            assert (result.exit_code, await result.stdout()) == (0, "hello\n")
            assert (await policy.update(allow_all=True)).egress.allow_all
        assert (await devbox.get_info()).status == "shutdown"
        await policy.delete()
        await sdk.aclose()

    asyncio.run(run())
