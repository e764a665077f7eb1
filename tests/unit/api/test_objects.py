"""Storage objects over the wire: their states, their URLs, their bytes."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from outgate.clock import wall_ms
from outgate.control.configuration import ApiSettings
from outgate.control.object_sweeping import UNNAMED_AFTER_MS
from outgate.control.sweeper import sweep
from support.api_server import HOST_TOKEN, ApiServer

UNKNOWN = "obj_" + "0" * 21


def create(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/objects", json={"name": "o", "content_type": "binary", **fields})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def store(client: httpx.Client, content: bytes, **fields: Any) -> dict[str, Any]:
    view = create(client, **fields)
    assert httpx.put(view["upload_url"], content=content).status_code == 200
    done: dict[str, Any] = client.post(f"/v1/objects/{view['id']}/complete").json()
    assert done["state"] == "READ_ONLY", done
    return done


def download_url(client: httpx.Client, object_id: str, **query: int) -> str:
    answer = client.get(f"/v1/objects/{object_id}/download", params=query)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["download_url"])


def files(server: ApiServer) -> set[str]:
    return {path.name for path in server.services.objects._directory.iterdir()}


def test_from_creation_to_deletion(server: ApiServer, client: httpx.Client) -> None:
    content = os.urandom(3_000_000)
    view = create(client, name="data", content_type="tgz", metadata={"k": "v"}, ttl_ms=60_000)
    assert (view["state"], view["size_bytes"], view["metadata"]) == ("UPLOADING", None, {"k": "v"})
    assert view["delete_after_time_ms"] == view["create_time_ms"] + 60_000
    assert view["upload_url"].startswith(server.base_url)
    assert client.get(f"/v1/objects/{view['id']}").json()["upload_url"] is None

    assert httpx.put(view["upload_url"], content=content).status_code == 200
    done = client.post(f"/v1/objects/{view['id']}/complete").json()
    assert done == {**view, "state": "READ_ONLY", "size_bytes": len(content), "upload_url": None}

    answer = httpx.get(download_url(client, view["id"]))
    assert answer.content == content
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")

    before = files(server)
    deleted = client.post(f"/v1/objects/{view['id']}/delete").json()
    assert deleted["state"] == "DELETED"
    assert client.get(f"/v1/objects/{view['id']}").json() == deleted
    assert {name for name in before - files(server) if name.startswith(view["id"])}
    assert client.post(f"/v1/objects/{view['id']}/delete").json() == deleted
    assert client.get(f"/v1/objects/{view['id']}/download").status_code == 404
    assert client.post(f"/v1/objects/{view['id']}/complete").status_code == 409


def test_an_empty_object_is_one(client: httpx.Client) -> None:
    done = store(client, b"", content_type="text")
    assert done["size_bytes"] == 0
    answer = httpx.get(download_url(client, done["id"]))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_what_is_uploaded_last_counts_and_nothing_after_complete(server: ApiServer, client: httpx.Client) -> None:
    view = create(client)
    for content in (b"first", b"the second"):
        assert httpx.put(view["upload_url"], content=content).status_code == 200
    assert len([name for name in files(server) if name.startswith(view["id"])]) == 1
    assert client.post(f"/v1/objects/{view['id']}/complete").json()["size_bytes"] == 10
    late = httpx.put(view["upload_url"], content=b"late")
    assert (late.status_code, late.headers["x-should-retry"]) == (409, "false")
    assert httpx.get(download_url(client, view["id"])).content == b"the second"


def test_complete_needs_an_upload_and_comes_once(client: httpx.Client) -> None:
    view = create(client)
    empty = client.post(f"/v1/objects/{view['id']}/complete")
    assert (empty.status_code, empty.json()["code"]) == (400, "object_empty")
    httpx.put(view["upload_url"], content=b"x")
    same_call = {"x-request-id": "one"}
    assert client.post(f"/v1/objects/{view['id']}/complete", headers=same_call).status_code == 200
    assert client.post(f"/v1/objects/{view['id']}/complete", headers=same_call).status_code == 200
    again = client.post(f"/v1/objects/{view['id']}/complete")
    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
    assert "READ_ONLY" in again.json()["message"]


def test_an_object_is_downloaded_once_it_is_complete(client: httpx.Client) -> None:
    view = create(client)
    httpx.put(view["upload_url"], content=b"x")
    refused = client.get(f"/v1/objects/{view['id']}/download")
    assert (refused.status_code, refused.json()["code"]) == (400, "object_not_ready")


def test_a_url_opens_one_thing_for_one_object_for_a_while(client: httpx.Client) -> None:
    first, second = create(client), store(client, b"second")
    upload = first["upload_url"]
    download = download_url(client, second["id"])
    assert httpx.get(upload).status_code == 403
    assert httpx.put(download, content=b"x").status_code == 403
    assert httpx.put(upload.replace(first["id"], second["id"]), content=b"x").status_code == 403
    assert httpx.get(download.replace("signature=", "signature=A")).status_code == 403
    assert httpx.get(download.replace("signature=", "signature=%00%C3")).status_code == 403
    assert httpx.get(download.replace("expires_ms=", "expires_ms=9")).status_code == 403
    assert httpx.get(download.replace("expires_ms=", "expires_ms=x")).status_code == 400
    assert httpx.get(download.replace("expires_ms=", "expires_ms=%D9%A3")).status_code == 400
    assert httpx.get(download.replace(second["id"], "obj_nothing")).status_code == 404
    assert httpx.get(download).status_code == 200
    short = download_url(client, second["id"], duration_seconds=1)
    time.sleep(1.1)
    expired = httpx.get(short)
    assert (expired.status_code, expired.json()["code"]) == (403, "url_expired")
    for seconds in ("0", "604801", "x", "-1"):
        assert client.get(f"/v1/objects/{second['id']}/download?duration_seconds={seconds}").status_code == 400


@pytest.mark.parametrize(
    ("wanted", "status", "content", "content_range"),
    [
        ("bytes=0-2", 206, b"012", "bytes 0-2/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
    ],
)
def test_ranges(client: httpx.Client, wanted: str, status: int, content: bytes | None, content_range: str) -> None:
    url = download_url(client, store(client, b"0123456789")["id"])
    answer = httpx.get(url, headers={"range": wanted})
    assert (answer.status_code, answer.headers["content-range"]) == (status, content_range)
    if content is not None:
        assert answer.content == content
    head = httpx.head(url)
    assert (head.status_code, head.headers["content-length"], head.headers["accept-ranges"]) == (200, "10", "bytes")


def test_lists_and_filters(client: httpx.Client) -> None:
    made = [create(client, name=f"File {n}", content_type=kind) for n, kind in enumerate(("text", "tar", "text"))]
    ids = [view["id"] for view in made]
    done = store(client, b"x", name="done")
    client.post(f"/v1/objects/{ids[0]}/delete")

    def listed(**query: object) -> list[str]:
        page = client.get("/v1/objects", params={key: str(value) for key, value in query.items()}).json()
        assert page["total_count"] >= len(page["objects"])
        return [view["id"] for view in page["objects"]]

    assert listed() == [done["id"], ids[2], ids[1]]
    assert listed(state="DELETED") == [ids[0]]
    assert listed(state="READ_ONLY") == [done["id"]]
    assert listed(content_type="text") == [ids[2]]
    assert listed(name="file") == [ids[2], ids[1]]
    assert listed(search=ids[1]) == [ids[1]]
    assert listed(search="File 2") == [ids[2]]
    assert listed(limit=1, starting_after=done["id"]) == [ids[2]]
    assert client.get("/v1/objects?limit=1").json()["has_more"] is True
    assert client.get("/v1/objects?include_total_count=false").json()["total_count"] is None
    assert client.get("/v1/objects/list_public").json() == {"objects": [], "has_more": False, "total_count": 0}
    for query in ("state=READ", "content_type=png", "starting_after=x", "limit=0", "limit=5001"):
        assert client.get(f"/v1/objects?{query}").status_code == 400, query
        assert client.get(f"/v1/objects/list_public?{query}").status_code == 400, query


def test_nothing_of_it_is_anothers(client: httpx.Client, stranger: httpx.Client) -> None:
    done = store(client, b"mine")
    for method, path in (("GET", ""), ("GET", "/download"), ("POST", "/complete"), ("POST", "/delete")):
        for object_id in (done["id"], UNKNOWN, "obj_short", "%00"):
            answer = stranger.request(method, f"/v1/objects/{object_id}{path}")
            assert answer.status_code == 404, (method, path, object_id)
    assert stranger.get("/v1/objects").json()["objects"] == []
    assert client.get(f"/v1/objects/{done['id']}").json()["state"] == "READ_ONLY"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content_type": "text"}, "name"),
        ({"name": "x"}, "content_type"),
        ({"name": "", "content_type": "text"}, "name"),
        ({"name": "x" * 257, "content_type": "text"}, "name"),
        ({"name": 7, "content_type": "text"}, "name"),
        ({"name": "x", "content_type": "png"}, "content_type"),
        ({"name": "x", "content_type": "text", "ttl_ms": 0}, "ttl_ms"),
        ({"name": "x", "content_type": "text", "ttl_ms": 2**60}, "ttl_ms"),
        ({"name": "x", "content_type": "text", "ttl_ms": "1"}, "ttl_ms"),
        ({"name": "x", "content_type": "text", "metadata": {"k": 1}}, "metadata.k"),
        ({"name": "x", "content_type": "text", "metadata": {"k": "\x00"}}, "metadata['k']"),
    ],
)
def test_bad_bodies(client: httpx.Client, body: dict[str, object], field: str) -> None:
    answer = client.post("/v1/objects", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert client.get("/v1/objects").json()["objects"] == []


def test_a_repeated_create_is_the_same_object(client: httpx.Client) -> None:
    headers, body = {"x-request-id": "again"}, {"name": "o", "content_type": "text"}
    first, second = (client.post("/v1/objects", json=body, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert httpx.put(second["upload_url"], content=b"x").status_code == 200
    assert client.post("/v1/objects", json={**body, "name": "p"}, headers=headers).status_code == 409
    client.post(f"/v1/objects/{first['id']}/complete")
    assert client.post("/v1/objects", json=body, headers=headers).json()["upload_url"] is None
    client.post(f"/v1/objects/{first['id']}/delete")
    assert client.post("/v1/objects", json=body, headers=headers).json()["id"] != first["id"]


def test_what_the_client_reached_is_what_it_is_sent_to(client: httpx.Client) -> None:
    body = {"name": "o", "content_type": "text"}
    sent = {"host": "api.example.test:8443", "x-forwarded-proto": "https"}
    url = urlsplit(client.post("/v1/objects", json=body, headers=sent).json()["upload_url"])
    assert (url.scheme, url.netloc) == ("https", "api.example.test:8443")
    sent = {"x-forwarded-proto": "javascript"}
    assert client.post("/v1/objects", json=body, headers=sent).json()["upload_url"].startswith("http://127.0.0.1")
    assert client.post("/v1/objects", json=body, headers={"host": 'a"b/c'}).status_code == 400


def send_raw(server: ApiServer, url: str, head: str, body: bytes, *, is_cut: bool = False) -> bytes:
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        target = f"{parts.path}?{parts.query}"
        connection.sendall(f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{head}\r\n\r\n".encode() + body)
        if is_cut:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)


@pytest.mark.parametrize(
    ("head", "body"),
    [("Content-Length: 10", b"short"), ("Transfer-Encoding: chunked", b"5\r\nshort\r\n")],
)
def test_half_an_upload_is_none(server: ApiServer, client: httpx.Client, head: str, body: bytes) -> None:
    view = create(client)
    send_raw(server, view["upload_url"], head, body, is_cut=True)
    assert client.post(f"/v1/objects/{view['id']}/complete").status_code == 400
    _until(lambda: not [name for name in files(server) if name.startswith(view["id"])])
    whole = send_raw(server, view["upload_url"], "Transfer-Encoding: chunked", b"5\r\nwhole\r\n0\r\n\r\n")
    assert whole.startswith(b"HTTP/1.1 200")
    assert client.post(f"/v1/objects/{view['id']}/complete").json()["size_bytes"] == 5


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_over_http2_an_upload_says_how_long_it_is(server: ApiServer, client: httpx.Client) -> None:
    """A stream that is reset in the middle looks like one that ended: without a length nobody could tell."""
    view = create(client)
    with httpx.Client(http1=False, http2=True) as http2:
        refused = http2.put(view["upload_url"], content=iter([b"a", b"b"]))
        assert (refused.status_code, refused.json()["code"]) == (411, "length_required")
        assert http2.put(view["upload_url"], content=b"whole").status_code == 200
        assert client.post(f"/v1/objects/{view['id']}/complete").json()["size_bytes"] == 5
        assert http2.get(download_url(client, view["id"])).content == b"whole"


def test_bounds_on_size(tmp_path: Path) -> None:
    settings = ApiSettings(object_bytes_max=1000, objects_bytes_max=1500, objects_max=3)
    with (
        ApiServer(tmp_path, settings) as server,
        server.client(server.new_account("small").api_key) as client,
    ):
        view = create(client)
        for content in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):
            refused = httpx.put(view["upload_url"], content=content)
            assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        assert files(server) == set()
        assert httpx.put(view["upload_url"], content=b"x" * 1000).status_code == 200
        # What it had before does not count against what replaces it.
        assert httpx.put(view["upload_url"], content=b"y" * 1000).status_code == 200
        other = create(client)
        assert httpx.put(other["upload_url"], content=b"x" * 501).status_code == 413
        assert httpx.put(other["upload_url"], content=b"x" * 500).status_code == 200
        create(client)
        full = client.post("/v1/objects", json={"name": "o", "content_type": "text"})
        assert (full.status_code, full.json()["code"]) == (400, "object_limit")
        client.post(f"/v1/objects/{view['id']}/delete")
        assert store(client, b"x" * 1000)["size_bytes"] == 1000


def sweep_at(server: ApiServer, now_ms: int) -> None:
    done = threading.Event()

    async def run() -> None:
        await sweep(server.services, now_ms, is_cleaning_due=True)
        done.set()

    server.call(lambda: (asyncio.ensure_future(run()), None)[1])
    assert done.wait(10)


def test_what_expires_goes(server: ApiServer, client: httpx.Client) -> None:
    done = store(client, b"for a while", ttl_ms=3_600_000)
    kept = store(client, b"for good")
    abandoned = create(client)
    httpx.put(abandoned["upload_url"], content=b"never completed")
    sweep_at(server, wall_ms() + 3_500_000)
    assert client.get(f"/v1/objects/{done['id']}").json()["state"] == "READ_ONLY"
    sweep_at(server, wall_ms() + 3_600_001)
    assert client.get(f"/v1/objects/{done['id']}").json()["state"] == "DELETED"
    assert client.get(f"/v1/objects/{abandoned['id']}").json()["state"] == "UPLOADING"
    sweep_at(server, wall_ms() + 24 * 3_600_000)
    assert client.get(f"/v1/objects/{abandoned['id']}").json()["state"] == "ERROR"
    assert not [n for n in files(server) if n.startswith((done["id"], abandoned["id"]))]
    sweep_at(server, wall_ms() + 9 * 24 * 3_600_000)
    assert client.get(f"/v1/objects/{done['id']}").status_code == 404
    assert httpx.get(download_url(client, kept["id"])).content == b"for good"


def test_files_that_no_object_names_are_swept_once_they_are_old(server: ApiServer, client: httpx.Client) -> None:
    done = store(client, b"named")
    directory = server.services.objects._directory
    orphan, foreign = directory / f"{UNKNOWN}.{'0' * 16}", directory / "not-ours"
    orphan.write_bytes(b"x")
    foreign.write_bytes(b"x")
    sweep_at(server, wall_ms() + UNNAMED_AFTER_MS - 60_000)
    assert orphan.exists()
    sweep_at(server, wall_ms() + UNNAMED_AFTER_MS + 60_000)
    assert not orphan.exists()
    assert foreign.exists()
    foreign.unlink()
    assert httpx.get(download_url(client, done["id"])).content == b"named"


def test_a_download_goes_on_while_its_object_is_deleted(client: httpx.Client) -> None:
    content = os.urandom(20_000_000)
    done = store(client, content)
    with httpx.stream("GET", download_url(client, done["id"])) as answer:
        pieces = answer.iter_bytes()
        got = next(pieces)
        assert client.post(f"/v1/objects/{done['id']}/delete").status_code == 200
        got += b"".join(pieces)
    assert got == content


def test_hosts_read_every_complete_object(server: ApiServer, client: httpx.Client) -> None:
    done, unfinished = store(client, b"for a devbox"), create(client)
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    with httpx.Client(transport=transport, base_url="http://api") as host:
        assert host.get(f"/internal/v1/objects/{done['id']}").status_code == 401
        host.headers["authorization"] = f"Bearer {HOST_TOKEN}"
        assert host.get(f"/internal/v1/objects/{done['id']}").content == b"for a devbox"
        for object_id in (unfinished["id"], UNKNOWN, "x"):
            assert host.get(f"/internal/v1/objects/{object_id}").status_code == 404
    assert client.get(f"/internal/v1/objects/{done['id']}").status_code == 404


def test_no_descriptor_is_left_open(server: ApiServer, client: httpx.Client) -> None:
    url = download_url(client, store(client, b"x" * 5_000_000)["id"])
    for _ in range(3):
        with httpx.stream("GET", url) as answer:
            next(answer.iter_bytes())
        httpx.get(url)

    def is_closed() -> bool:
        return not [fd for fd in Path("/proc/self/fd").iterdir() if "/objects/obj_" in _target(fd)]

    _until(is_closed)


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""


def test_what_is_sent_is_described(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert "object-transfers" not in json.dumps(document["paths"])
