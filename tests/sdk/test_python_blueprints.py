"""The official Python client with blueprints: generated client and object layer, blocking and asyncio."""

import asyncio

import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloopSDK, Runloop, RunloopSDK
from runloop_api_client.lib.polling import PollingConfig

from outgate.clock import wall_ms
from outgate.model.desired import BUILD_COMPLETE, DesiredPhase, DevboxDocument, ObservedDevbox, ObservedPhase
from support.api_server import ApiServer

SOON = PollingConfig(interval_seconds=0.05, max_attempts=200)


def test_the_object_layer(server: ApiServer, api_key: str) -> None:
    with RunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
        at_build = sdk.network_policy.create(name="build", allowed_hostnames=["github.com"])
        at_launch = sdk.network_policy.create(name="launch")
        blueprint = sdk.blueprint.create(
            name="b",
            dockerfile="FROM ubuntu:22.04\n",
            system_setup_commands=["true"],
            network_policy_id=at_build.id,
            launch_parameters={"network_policy_id": at_launch.id},
            metadata={"k": "v"},
            polling_config=SOON,
        )
        info = blueprint.get_info()
        assert (info.status, info.state, info.metadata) == ("build_complete", "created", {"k": "v"})
        assert info.parameters.network_policy_id == at_build.id
        assert info.parameters.launch_parameters is not None
        assert info.parameters.launch_parameters.network_policy_id == at_launch.id
        assert blueprint.logs().blueprint_id == blueprint.id
        assert [one.id for one in sdk.blueprint.list(name="b")] == [blueprint.id]

        with blueprint.create_devbox(name="heir") as devbox:
            view = devbox.get_info()
            assert (view.status, view.blueprint_id) == ("running", blueprint.id)
            assert view.launch_parameters.network_policy_id == at_launch.id
            with pytest.raises(runloop_api_client.BadRequestError, match=devbox.id):
                blueprint.delete()
        with sdk.devbox.create_from_blueprint_name("b", launch_parameters={"network_policy_id": at_build.id}) as devbox:
            assert devbox.get_info().launch_parameters.network_policy_id == at_build.id
        with pytest.raises(runloop_api_client.BadRequestError, match=blueprint.id):
            at_launch.delete()
        blueprint.delete()
        assert blueprint.get_info().state == "deleted"
        at_launch.delete()
        with pytest.raises(runloop_api_client.BadRequestError, match="no blueprint"):
            sdk.devbox.create_from_blueprint_id(blueprint.id)


def test_the_object_layer_asynchronously(server: ApiServer, api_key: str) -> None:
    async def scenario() -> None:
        async with AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
            made = await asyncio.gather(
                *(sdk.blueprint.create(name=f"b{number}", polling_config=SOON) for number in range(5))
            )
            assert {(await one.get_info()).status for one in made} == {"build_complete"}
            assert (await made[0].logs()).logs == []
            async with await made[0].create_devbox() as devbox:
                assert (await devbox.get_info()).blueprint_id == made[0].id
            await asyncio.gather(*(one.delete() for one in made))
            assert await sdk.blueprint.list() == []

    asyncio.run(scenario())


def test_the_generated_client(server: ApiServer, api_key: str) -> None:
    with Runloop(base_url=server.base_url, bearer_token=api_key) as client:
        made = [client.blueprints.create(name="many").id for _ in range(3)]
        assert [one.id for one in client.blueprints.list(limit=2)] == made[::-1]
        assert client.blueprints.list_public().blueprints == []
        with pytest.deprecated_call():
            preview = client.blueprints.preview(name="p", system_setup_commands=["id"])
        assert preview.dockerfile == "FROM stock\nUSER root\nRUN id\n"
        with pytest.raises(runloop_api_client.BadRequestError, match="services"):
            client.blueprints.create(name="s", services=[{"name": "db", "image": "postgres"}])
        with pytest.raises(runloop_api_client.NotFoundError):
            client.blueprints.logs("bpt_" + "a" * 21)


def test_a_failed_build_is_an_exception_of_the_client(server: ApiServer, api_key: str) -> None:
    def fail(devbox: DevboxDocument) -> ObservedDevbox:
        if devbox.phase is DesiredPhase.RUNNING:
            return ObservedDevbox(devbox.id, ObservedPhase.FAILURE, wall_ms(), detail="It went wrong.")
        return ObservedDevbox(devbox.id, ObservedPhase.SHUTDOWN, wall_ms(), shutdown_reason=BUILD_COMPLETE)

    server.agent.observe = fail
    try:
        with (
            RunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk,
            pytest.raises(runloop_api_client.RunloopError, match="failed"),
        ):
            sdk.blueprint.create(name="b", polling_config=SOON)
    finally:
        server.agent.observe = None
