"""The official Python client with storage objects, secrets, configurations and keys: blocking and asyncio."""

import asyncio
import io
import tarfile
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloopSDK, Runloop, RunloopSDK

from support.api_server import ApiServer


@pytest.fixture
def client(sdk: RunloopSDK) -> Runloop:
    return sdk.api


def test_objects_from_text_bytes_file_and_directory(sdk: RunloopSDK, tmp_path: Path) -> None:
    text = sdk.storage_object.upload_from_text("grüße", name="t", metadata={"k": "v"}, ttl=timedelta(minutes=5))
    assert text.download_as_text() == "grüße"
    info = text.refresh()
    assert (info.state, info.content_type, info.metadata) == ("READ_ONLY", "text", {"k": "v"})
    assert info.delete_after_time_ms == info.create_time_ms + 300_000

    data = bytes(range(256)) * 4096
    binary = sdk.storage_object.upload_from_bytes(data, name="b", content_type="binary")
    assert binary.download_as_bytes(duration_seconds=60) == data

    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file.txt").write_text("inside")
    tree = sdk.storage_object.upload_from_dir(tmp_path / "tree")
    assert tree.refresh().content_type == "tgz"
    with tarfile.open(fileobj=io.BytesIO(tree.download_as_bytes()), mode="r:gz") as archive:
        member = archive.extractfile(next(name for name in archive.getnames() if name.endswith("file.txt")))
        assert member is not None
        assert member.read() == b"inside"
    assert tree.as_build_context() == {"object_id": tree.id, "type": "object"}

    (tmp_path / "notes.json").write_text("{}")
    file = sdk.storage_object.upload_from_file(tmp_path / "notes.json")
    assert (file.refresh().name, file.refresh().content_type) == ("notes.json", "text")

    assert [o.id for o in sdk.storage_object.list()] == [file.id, tree.id, binary.id, text.id]
    assert [o.id for o in sdk.storage_object.list(content_type="tgz")] == [tree.id]
    assert file.delete().state == "DELETED"
    assert file.refresh().state == "DELETED"
    with pytest.raises(runloop_api_client.NotFoundError):
        file.download_as_bytes()


def test_an_object_step_by_step(sdk: RunloopSDK) -> None:
    made = sdk.storage_object.create(name="o", content_type="unspecified")
    with pytest.raises(runloop_api_client.BadRequestError, match="Nothing was uploaded"):
        made.complete()
    assert sdk.storage_object.from_id(made.id).upload_url is None
    # An iterator has no length: it goes out in chunks.
    made.upload_content(iter([b"in ", b"pieces"]))
    upload_url = made.upload_url
    assert made.complete().size_bytes == 9
    assert made.upload_url is None
    with pytest.raises(runloop_api_client.ConflictError):
        made.complete()
    late = sdk.storage_object.from_id(made.id)
    late._upload_url = upload_url
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        late.upload_content("late")
    assert sdk.storage_object.from_id(made.id).download_as_text() == "in pieces"


def test_secrets(sdk: RunloopSDK, client: Runloop) -> None:
    made = sdk.secret.create(name="TOKEN", value="one")
    assert made.id is not None
    assert made.id.startswith("sec_")
    assert sdk.secret.from_name("TOKEN").get_info().id == made.id
    assert made.update("two").name == "TOKEN"
    sdk.secret.update("TOKEN", "three")
    by_id = sdk.secret.from_id(made.id)
    assert by_id.get_info().name == "TOKEN"
    assert by_id.update("four").id == made.id
    with pytest.raises(runloop_api_client.BadRequestError, match="already exists"):
        sdk.secret.create(name="TOKEN", value="x")
    assert [secret.name for secret in sdk.secret.list()] == ["TOKEN"]
    assert client.secrets.list(limit=1).total_count == 1
    assert made.delete().id == made.id
    with pytest.raises(runloop_api_client.NotFoundError, match="Secret 'TOKEN' not found"):
        made.get_info()
    with pytest.raises(runloop_api_client.NotFoundError):
        by_id.delete()


def test_configurations(sdk: RunloopSDK, client: Runloop) -> None:
    secret = sdk.secret.create(name="KEY", value="x")
    gateway = sdk.gateway_config.create(
        name="anthropic",
        endpoint="https://api.anthropic.com",
        auth_mechanism={"type": "header", "key": "x-api-key"},
        custom_headers=[{"name": "X-Org", "secret": "KEY"}],
    )
    info = gateway.get_info()
    assert info.custom_headers is not None
    assert (info.auth_mechanism.key, info.custom_headers[0].secret) == ("x-api-key", secret.id)
    assert gateway.update(custom_headers=[]).custom_headers == []
    assert gateway.update(description="d").endpoint == "https://api.anthropic.com"
    assert [config.id for config in sdk.gateway_config.list()] == [gateway.id]
    assert [config.id for config in client.gateway_configs.list(limit=1)] == [gateway.id]

    mcp = sdk.mcp_config.create(name="github-ro", endpoint="https://mcp.example.com", allowed_tools=["github.get_*"])
    assert mcp.get_info().auth_mechanism.type == "bearer"
    assert mcp.update(allowed_tools=["*"]).allowed_tools == ["*"]
    assert [config.id for config in sdk.mcp_config.list()] == [mcp.id]

    devbox = sdk.devbox.create()
    with pytest.raises(runloop_api_client.BadRequestError, match="no agent gateway"):
        client.devboxes.create_gateway_token(devbox.id, gateway="anthropic", secret="KEY")
    with pytest.raises(runloop_api_client.BadRequestError, match="no MCP hub"):
        client.devboxes.create_mcp_token(devbox.id, mcp_config=mcp.id, secret=str(secret.id))
    devbox.shutdown()
    gateway.delete()
    mcp.delete()
    for config in (gateway, mcp):
        with pytest.raises(runloop_api_client.NotFoundError):
            config.get_info()


def test_keys(server: ApiServer, client: Runloop) -> None:
    account = client.accounts.me()
    assert account.account_status == "ACCOUNT_STATUS_ENABLED"
    full = client.apikeys.create(name="ci")
    assert client.with_options(bearer_token=str(full.key_secret)).accounts.me() == account
    made = client.restricted_keys.create(
        name="reader", scopes=[{"resource_type": "RESOURCE_TYPE_DEVBOXES", "access_level": "ACCESS_LEVEL_READ"}]
    )
    assert made.scopes is not None
    assert made.scopes[0].resource_type == "RESOURCE_TYPE_DEVBOXES"
    restricted = client.with_options(bearer_token=str(made.key_secret))
    assert restricted.network_policies.list().network_policies == []
    with pytest.raises(runloop_api_client.PermissionDeniedError, match="ACCESS_LEVEL_WRITE on RESOURCE_TYPE_DEVBOXES"):
        restricted.network_policies.create(name="p")
    with pytest.raises(runloop_api_client.BadRequestError, match="scopes"):
        client.restricted_keys.create(name="none", scopes=[])


def test_the_same_by_asyncio(server: ApiServer, api_key: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
            made = await sdk.storage_object.upload_from_text("text", name="t")
            assert await made.download_as_text() == "text"
            (tmp_path / "f.bin").write_bytes(b"\x00" * 100_000)
            file = await sdk.storage_object.upload_from_file(tmp_path / "f.bin")
            assert len(await file.download_as_bytes()) == 100_000
            tree = await sdk.storage_object.upload_from_dir(tmp_path)
            data = await sdk.storage_object.upload_from_bytes(b"b", name="b", content_type="binary")
            assert (await data.refresh()).size_bytes == 1
            listed = await sdk.storage_object.list()
            assert [one.id for one in listed] == [data.id, tree.id, file.id, made.id]
            assert (await made.delete()).state == "DELETED"

            secret = await sdk.secret.create(name="TOKEN", value="one")
            assert (await secret.update("two")).name == "TOKEN"
            assert (await secret.get_info()).id == secret.id
            assert [one.name for one in await sdk.secret.list()] == ["TOKEN"]
            await secret.delete()

            gateway = await sdk.gateway_config.create(
                name="g", endpoint="https://a.example", auth_mechanism={"type": "bearer"}
            )
            assert (await gateway.update(name="h")).name == "h"
            await gateway.delete()
            mcp = await sdk.mcp_config.create(name="m", endpoint="https://a.example", allowed_tools=["*"])
            assert [one.id for one in await sdk.mcp_config.list()] == [mcp.id]
            await mcp.delete()

    asyncio.run(run())
