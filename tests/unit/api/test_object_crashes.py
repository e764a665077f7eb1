"""kill -9 of the api around an upload: afterwards there is no object, or a whole one."""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outgate.clock import wall_ms
from outgate.control.object_sweeping import UNNAMED_AFTER_MS
from support.running_api import Running, run

CONTENT = os.urandom(2_000_000)
PIECE = 50_000


@pytest.fixture
def public() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as bound:
        yield bound


def pieces(pause_s: float) -> Iterator[bytes]:
    for start in range(0, len(CONTENT), PIECE):
        time.sleep(pause_s)
        yield CONTENT[start : start + PIECE]


def create(client: httpx.Client, name: str) -> dict[str, Any]:
    view: dict[str, Any] = client.post("/v1/objects", json={"name": name, "content_type": "binary"}).json()
    return view


def test_an_upload_that_is_killed_leaves_nothing_that_counts(tmp_path: Path, public: socket.socket) -> None:
    with run(tmp_path, public) as running, running.client() as client:
        view = create(client, "cut")
        upload = threading.Thread(target=_try_put, args=(view["upload_url"], pieces(0.02)))
        upload.start()
        directory = tmp_path / "objects"
        deadline = time.monotonic() + 30
        while not any(directory.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.end(signal.SIGKILL)
        upload.join(10)
    orphans = list(directory.iterdir())
    assert len(orphans) == 1
    with run(tmp_path, public) as running, running.client() as client:
        again = client.post(f"/v1/objects/{view['id']}/complete")
        assert (again.status_code, again.json()["code"]) == (400, "object_empty")
        # The URL outlives the restart: its key does.
        assert httpx.put(view["upload_url"], content=CONTENT).status_code == 200
        assert client.post(f"/v1/objects/{view['id']}/complete").json()["size_bytes"] == len(CONTENT)
        assert _download(client, view["id"]) == CONTENT
        # The sweeper looks once a minute for files this old that no object names.
        old_s = (wall_ms() - UNNAMED_AFTER_MS) / 1000 - 60
        os.utime(orphans[0], (old_s, old_s))


def test_what_was_answered_holds_whenever_it_is_killed(tmp_path: Path, public: socket.socket) -> None:
    """Killed at a random moment of many objects' lives; what was said of each of them is true afterwards."""
    chance = random.Random(7)
    said: dict[str, str] = {}
    for _ in range(2):
        with run(tmp_path, public) as running:
            worker = threading.Thread(target=_live, args=(running, said))
            worker.start()
            # After a number of lives and then at any moment of one, however slow the machine is.
            wanted, deadline = len(said) + chance.randint(3, 9), time.monotonic() + 30
            while len(said) < wanted and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            running.end(signal.SIGKILL)
            worker.join(10)
            assert not worker.is_alive()
    with run(tmp_path, public) as running, running.client() as client:
        assert len(said) > 3
        for object_id, state in said.items():
            found = client.get(f"/v1/objects/{object_id}").json()["state"]
            # What was under way may have happened all the same; what was answered must have.
            assert (state, found) in {
                ("UPLOADING", "UPLOADING"),
                ("UPLOADED", "UPLOADING"),
                ("UPLOADED", "READ_ONLY"),
                ("READ_ONLY", "READ_ONLY"),
                ("READ_ONLY", "DELETED"),
                ("DELETED", "DELETED"),
            }
            if state == "UPLOADED" and found == "UPLOADING":
                found = client.post(f"/v1/objects/{object_id}/complete").json()["state"]
            if found == "READ_ONLY":
                assert _download(client, object_id) == object_id.encode() * 1000
        listed = client.get("/v1/objects?limit=5000").json()["objects"]
        named = {view["id"] for view in listed if view["size_bytes"] is not None}
    files = [path.name.partition(".")[0] for path in (tmp_path / "objects").iterdir()]
    assert named <= set(files)


def _live(running: Running, said: dict[str, str]) -> None:
    with running.client() as client, contextlib.suppress(httpx.HTTPError, KeyError):
        # The socket stays open while no api runs, so requests wait instead of failing: not for long.
        client.timeout = httpx.Timeout(2)
        while True:
            view = create(client, "o")
            object_id = view["id"]
            said[object_id] = "UPLOADING"
            if httpx.put(view["upload_url"], content=object_id.encode() * 1000, timeout=2).status_code != 200:
                return
            said[object_id] = "UPLOADED"
            if client.post(f"/v1/objects/{object_id}/complete").status_code != 200:
                return
            said[object_id] = "READ_ONLY"
            if len(said) % 2 and client.post(f"/v1/objects/{object_id}/delete").status_code == 200:
                said[object_id] = "DELETED"


def _try_put(url: str, content: Iterator[bytes]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.put(url, content=content)


def _download(client: httpx.Client, object_id: str) -> bytes:
    return httpx.get(client.get(f"/v1/objects/{object_id}/download").json()["download_url"]).content
