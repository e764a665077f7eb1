"""The agent's client of the api."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgate.agent.serving import bind_unix, serve_unix
from outgate.client.host_api import HostApiClient
from outgate.client.transport import PeerRefusedError, PeerUnreachableError, unix_url
from outgate.model.desired import DesiredState, HostReport

STATE = DesiredState(revision=5, full=True)
REPORT = HostReport(boot_id="b", url="unix:/x", enforced=5)


class Api:
    """An api that notes what it is asked."""

    def __init__(self) -> None:
        self.answer = Response(msgspec.json.encode(STATE))
        self.asked: list[tuple[str, str, str, bytes]] = []

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        self.asked.append((request.method, str(request.url.query), request.headers["authorization"], body))
        return self.answer

    def app(self) -> Starlette:
        paths = ("/internal/v1/desired-state", "/internal/v1/report", "/internal/v1/objects/{id}")
        return Starlette(routes=[Route(path, self.handle, methods=["GET", "POST"]) for path in paths])


@asynccontextmanager
async def talking(path: Path, api: Api) -> AsyncIterator[HostApiClient]:
    with bind_unix(path) as bound:
        task = asyncio.ensure_future(serve_unix(api.app(), bound))
        async with HostApiClient(unix_url(path), "token") as client:
            yield client
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_state_is_fetched_and_a_report_handed_in(tmp_path: Path) -> None:
    api = Api()

    async def scenario() -> None:
        async with talking(tmp_path / "api.sock", api) as client:
            assert await client.fetch_desired_state(3, 25.0) == STATE
            await client.report(REPORT)

    asyncio.run(scenario())
    assert api.asked[0] == ("GET", "after=3&wait_s=25", "Bearer token", b"")
    assert api.asked[1][0] == "POST"
    assert msgspec.json.decode(api.asked[1][3], type=HostReport) == REPORT


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (Response(b'{"message":"no such host"}', status_code=401), "no such host"),
        (Response(b"{}"), "cannot be read"),
        (Response(b'{"revision":1,"full":true,"surprise":1}'), "cannot be read"),
        (Response(b"\xff\xfe"), "cannot be read"),
    ],
)
def test_an_answer_that_is_none_is_a_refusal(tmp_path: Path, answer: Response, match: str) -> None:
    api = Api()
    api.answer = answer

    async def scenario() -> None:
        async with talking(tmp_path / "api.sock", api) as client:
            with pytest.raises(PeerRefusedError, match=match):
                await client.fetch_desired_state(0, 1)

    asyncio.run(scenario())


def test_an_api_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with HostApiClient(unix_url(tmp_path / "none.sock"), "token") as client:
            with pytest.raises(PeerUnreachableError):
                await client.report(REPORT)
            with pytest.raises(PeerUnreachableError):
                await client.fetch_desired_state(0, 1)

    asyncio.run(scenario())


def test_an_object_comes_as_a_stream(tmp_path: Path) -> None:
    api = Api()
    content = bytes(range(256)) * 4000

    async def scenario() -> None:
        api.answer = Response(content)
        async with talking(tmp_path / "api.sock", api) as client, client.open_object("obj_1") as stream:
            assert stream.size_bytes == len(content)
            assert b"".join([piece async for piece in stream]) == content
        assert api.asked[-1][2] == "Bearer token"

    asyncio.run(scenario())


def test_an_object_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    api = Api()

    async def scenario() -> None:
        api.answer = Response(b'{"message": "Object obj_1 not found.", "code": "object_not_found"}', 404)
        async with talking(tmp_path / "api.sock", api) as client:
            with pytest.raises(PeerRefusedError, match="not found"):
                async with client.open_object("obj_1"):
                    pass

    asyncio.run(scenario())


def test_an_object_that_breaks_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort")
        writer.close()

    async def scenario() -> None:
        path = tmp_path / "api.sock"
        async with await asyncio.start_unix_server(cut, path), HostApiClient(unix_url(path), "token") as client:
            with pytest.raises(PeerUnreachableError, match="broke off"):
                async with client.open_object("obj_1") as stream:
                    [piece async for piece in stream]

    asyncio.run(scenario())
