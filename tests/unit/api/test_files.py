"""Files of devboxes over HTTP."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from outgate.api import files, uploads
from outgate.client.transport import PeerRefusedError
from outgate.control import pace
from outgate.model.executions import FileProblem
from support.api_server import ApiServer

DATA = bytes(range(256)) * 1000


@pytest.fixture
def api_key(server: ApiServer, request: pytest.FixtureRequest) -> str:
    return server.new_account(request.node.nodeid).api_key


@pytest.fixture
def path(client: httpx.Client) -> Iterator[str]:
    view = client.post("/v1/devboxes/create_and_await_running").json()
    yield f"/v1/devboxes/{view['id']}"
    client.post(f"/v1/devboxes/{view['id']}/shutdown")


def stored(server: ApiServer, path: str, name: str) -> bytes | None:
    return server.gateway.files.get((path.rsplit("/", 1)[1], name))


def form(*parts: tuple[str, bytes], boundary: str = "b", end: bool = True) -> dict[str, Any]:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    )
    content = body + (f"--{boundary}--\r\n".encode() if end else b"")
    return {"content": content, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def test_text_is_written_and_read(client: httpx.Client, path: str, server: ApiServer) -> None:
    body = {"file_path": "dir/ü.txt", "contents": "grüße\n"}
    done = client.post(f"{path}/write_file_contents", json=body)
    assert done.status_code == 200
    assert (done.json()["exit_status"], done.json()["devbox_id"]) == (0, path.rsplit("/", 1)[1])
    assert stored(server, path, "dir/ü.txt") == "grüße\n".encode()
    read = client.post(f"{path}/read_file_contents", json={"file_path": "dir/ü.txt"})
    assert (read.status_code, read.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert read.text == "grüße\n"
    assert read.headers["x-content-type-options"] == "nosniff"


def test_what_is_no_text_is_read_with_replacements(client: httpx.Client, path: str, server: ApiServer) -> None:
    server.gateway.files[path.rsplit("/", 1)[1], "bin"] = b"a\xff\xe2\x82"
    read = client.post(f"{path}/read_file_contents", json={"file_path": "bin"})
    assert read.content == "a\ufffd\ufffd".encode()


@pytest.mark.parametrize("http2", [False, True])
def test_bytes_go_up_and_come_down(server: ApiServer, api_key: str, http2: bool) -> None:
    headers = {"authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=40, http1=not http2, http2=http2) as client:
        box = client.post("/v1/devboxes/create_and_await_running").json()["id"]
        done = client.post(f"/v1/devboxes/{box}/upload_file", data={"path": "up.bin"}, files={"file": DATA})
        assert (done.status_code, done.json()) == (200, {})
        assert server.gateway.files[box, "up.bin"] == DATA
        down = client.post(f"/v1/devboxes/{box}/download_file", json={"path": "up.bin"})
        assert (down.content, down.headers["content-type"]) == (DATA, "application/octet-stream")
        client.post(f"/v1/devboxes/{box}/shutdown")


def test_a_text_larger_than_other_bodies_is_written(client: httpx.Client, path: str, server: ApiServer) -> None:
    body = {"file_path": "large", "contents": "x" * (3 * 1024 * 1024)}
    assert client.post(f"{path}/write_file_contents", json=body).status_code == 200
    assert len(stored(server, path, "large") or b"") == 3 * 1024 * 1024
    body["contents"] = "x" * files.CONTENTS_BYTES_MAX
    assert client.post(f"{path}/write_file_contents", json=body).status_code == 413


def test_a_small_file_may_come_before_its_path(client: httpx.Client, path: str, server: ApiServer) -> None:
    assert client.post(f"{path}/upload_file", **form(("file", b"abc"), ("path", b"x"))).status_code == 200
    assert stored(server, path, "x") == b"abc"
    large = form(("file", b"x" * (uploads.EARLY_BYTES_MAX + 1000)), ("path", b"y"))
    parts = iter([large["content"][:-100], large["content"][-100:]])
    answer = client.post(f"{path}/upload_file", content=parts, headers=large["headers"])
    assert (answer.status_code, answer.json().get("field")) == (400, "path"), answer.text
    assert stored(server, path, "y") is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"json": {"path": "x"}}, "file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "file"),
        ({"content": b"garbage", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "file"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "file"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=" + "b" * 5000}}, "file"),
        (form(("path", b"x")), "file"),
        (form(("file", b"x")), "path"),
        (form(("path", b""), ("file", b"x")), "path"),
        (form(("path", b"x" * 5000), ("file", b"x")), "path"),
        (form(("path", b"\xff"), ("file", b"x")), "path"),
        (form(("path", b"a\x00b"), ("file", b"x")), "path"),
        (form(("path", b"x"), ("path", b"y"), ("file", b"x")), "path"),
        (form(("path", b"x"), ("file", b"x"), ("file", b"y")), "file"),
        (form(("path", b"x"), ("file", b"x"), end=False), "file"),
        (form(("file", b"x"), ("path", b"x"), end=False), "file"),
    ],
)
def test_forms_that_are_none(
    client: httpx.Client, path: str, server: ApiServer, request_: dict[str, Any], field: str
) -> None:
    answer = client.post(f"{path}/upload_file", **request_)
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert server.gateway.files.get((path.rsplit("/", 1)[1], "x")) is None


def test_an_upload_has_an_end(client: httpx.Client, path: str, server: ApiServer) -> None:
    limit = server.services.settings.upload_bytes_max
    object.__setattr__(server.services.settings, "upload_bytes_max", 1000)
    try:
        answer = client.post(f"{path}/upload_file", **form(("path", b"x"), ("file", b"x" * 1001)))
        assert answer.status_code == 413
        assert client.post(f"{path}/upload_file", **form(("path", b"x"), ("file", b"x" * 1000))).status_code == 200
    finally:
        object.__setattr__(server.services.settings, "upload_bytes_max", limit)


def test_an_upload_that_stalls_is_given_up(
    client: httpx.Client, path: str, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "STALL_S_MAX", 0.2)
    begun = form(("path", b"x"), ("file", b"abc"), end=False)["content"]
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=40)) as connection:
        connection.putrequest("POST", f"{path}/upload_file")
        connection.putheader("authorization", client.headers["authorization"])
        connection.putheader("content-type", "multipart/form-data; boundary=b")
        connection.putheader("content-length", str(len(begun) + 1))
        connection.endheaders(begun)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (408, "transfer_stalled")
    assert stored(server, path, "x") is None


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (FileProblem.MISSING, 404),
        (FileProblem.DIRECTORY, 400),
        (FileProblem.SPECIAL, 400),
        (FileProblem.DENIED, 400),
        (FileProblem.FULL, 400),
        (FileProblem.STALLED, 400),
        (FileProblem.FAILED, 400),
    ],
)
def test_what_the_box_does_not_allow(
    client: httpx.Client, path: str, server: ApiServer, problem: FileProblem, status: int
) -> None:
    server.gateway.refusal = PeerRefusedError("The reason.", status=422, code=problem.value)
    try:
        for route, body in (
            ("read_file_contents", {"json": {"file_path": "x"}}),
            ("write_file_contents", {"json": {"file_path": "x", "contents": ""}}),
            ("download_file", {"json": {"path": "x"}}),
            ("upload_file", form(("path", b"x"), ("file", b"x"))),
        ):
            answer = client.post(f"{path}/{route}", **body)
            assert (answer.status_code, answer.json()["code"]) == (status, problem.value)
            assert "The reason." in answer.json()["message"]
    finally:
        server.gateway.refusal = None


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("read_file_contents", {}),
        ("read_file_contents", {"file_path": 1}),
        ("read_file_contents", {"file_path": ""}),
        ("read_file_contents", {"file_path": "a\u0000"}),
        ("read_file_contents", {"file_path": "x" * 4096}),
        ("write_file_contents", {"file_path": "x"}),
        ("write_file_contents", {"file_path": "x", "contents": None}),
        ("write_file_contents", {"file_path": "", "contents": ""}),
        ("download_file", {}),
        ("download_file", {"path": None}),
    ],
)
def test_bodies_that_make_no_sense(client: httpx.Client, path: str, route: str, body: dict[str, Any]) -> None:
    assert client.post(f"{path}/{route}", json=body).status_code == 400


def test_whose_box_it_is_and_whether_it_runs(client: httpx.Client, path: str, server: ApiServer) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read_file_contents", {"json": {"file_path": "x"}}),
        ("write_file_contents", {"json": {"file_path": "x", "contents": ""}}),
        ("download_file", {"json": {"path": "x"}}),
        ("upload_file", form(("path", b"x"), ("file", b"x"))),
    ]
    other = server.new_account("somebody else").api_key
    for route, body in calls:
        foreign = {**body, "headers": {**body.get("headers", {}), "authorization": f"Bearer {other}"}}
        assert client.post(f"{path}/{route}", **foreign).status_code == 404
        assert client.post(f"/v1/devboxes/dbx_{'0' * 21}/{route}", **body).status_code == 404
        assert client.post(f"/v1/devboxes/x/{route}", **body).status_code == 404
        server.gateway.fail = True
        assert client.post(f"{path}/{route}", **body).status_code == 503
        server.gateway.fail = False
    client.post(f"{path}/shutdown")
    for route, body in calls:
        answer = client.post(f"{path}/{route}", **body)
        assert (answer.status_code, answer.json()["code"]) == (409, "devbox_not_running")


@pytest.mark.parametrize("http2", [False, True])
def test_a_download_that_breaks_off_is_no_shorter_file(server: ApiServer, api_key: str, http2: bool) -> None:
    headers = {"authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=40, http1=not http2, http2=http2) as client:
        box = client.post("/v1/devboxes/create_and_await_running").json()["id"]
        server.gateway.files[box, "x"] = DATA
        server.gateway.break_file_after = len(DATA) // 2
        try:
            with pytest.raises(httpx.HTTPError):
                client.post(f"/v1/devboxes/{box}/download_file", json={"path": "x"})
        finally:
            server.gateway.break_file_after = None
        assert server.gateway.follows == 0
        client.post(f"/v1/devboxes/{box}/shutdown")
