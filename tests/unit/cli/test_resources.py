"""``outgate object`` and ``outgate secret`` against the real api: what they send, what they print, how they end."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outgate.cli import main
from outgate.cli import object as object_command
from outgate.control.secrets import resolve_secrets
from support.api_server import ApiServer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def run(
    server: ApiServer,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the whole program: exit code, standard output, standard error."""
    monkeypatch.setenv("OUTGATE_URL", server.base_url)
    monkeypatch.setenv("OUTGATE_API_KEY", server.new_account(request.node.nodeid).api_key)

    def run_it(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["outgate", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run_it


def test_objects_go_up_and_come_down(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site.tar.gz").write_bytes(b"\x1f\x8b" * 100_000)
    code, out, _ = run(
        "object", "upload", str(tmp_path / "site.tar.gz"), "--metadata", "team=a", "--ttl", "600", "--json"
    )
    view = json.loads(out)
    assert (code, view["state"], view["content_type"], view["size_bytes"]) == (0, "READ_ONLY", "tgz", 200_000)
    assert view["metadata"] == {"team": "a"}
    assert view["delete_after_time_ms"] - view["create_time_ms"] == 600_000

    code, out, _ = run("object", "list")
    assert code == 0
    assert f"{view['id']}\tsite.tar.gz\ttgz\tREAD_ONLY\t200000\t" in out
    code, out, _ = run("object", "get", view["id"], "--output", str(tmp_path / "down"))
    assert code == 0
    assert "READ_ONLY" in out
    assert (tmp_path / "down").read_bytes() == b"\x1f\x8b" * 100_000
    assert run("object", "delete", view["id"])[0] == 0
    assert json.loads(run("object", "list", "--json")[1]) == []
    code, _, err = run("object", "get", view["id"], "--output", str(tmp_path / "again"))
    assert (code, "not found" in err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "site.tar.gz"]


def test_what_cannot_be_uploaded_leaves_no_object(run: Run, tmp_path: Path) -> None:
    code, _, err = run("object", "upload", str(tmp_path / "none"))
    assert (code, "cannot be read" in err) == (1, True)
    (tmp_path / "x").write_bytes(b"x")
    code, _, err = run("object", "upload", str(tmp_path / "x"), "--type", "png")
    assert (code, "content_type" in err) == (1, True)
    assert run("object", "upload", str(tmp_path / "x"), "--metadata", "novalue")[0] == 2
    assert json.loads(run("object", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.TGZ", "tgz"), ("a.tar.gz", "tgz"), ("a.tar", "tar"), ("a.gz", "gzip"), ("a.md", "text"), ("a", "unspecified")],
)
def test_a_name_says_what_is_inside(name: str, kind: str) -> None:
    assert object_command.guess_type(name) == kind


def test_secrets_are_read_and_never_shown(run: Run, tmp_path: Path) -> None:
    code, out, err = run("secret", "create", "TOKEN", stdin=b"hunter2\n")
    assert code == 0
    assert "hunter2" not in out + err
    (tmp_path / "value").write_text("other")
    code, out, _ = run("secret", "update", "TOKEN", "--file", str(tmp_path / "value"), "--json")
    assert (code, json.loads(out)["name"]) == (0, "TOKEN")
    assert [view["name"] for view in json.loads(run("secret", "list", "--json")[1])] == ["TOKEN"]
    assert run("secret", "list")[1].splitlines()[1].split("\t")[1] == "TOKEN"
    code, _, err = run("secret", "create", "TOKEN", stdin=b"x")
    assert (code, "already exists" in err) == (1, True)
    assert run("secret", "create", "NEXT", stdin=b"\xff")[0] == 1
    assert run("secret", "create", "NEXT", "--file", str(tmp_path / "none"))[0] == 1
    assert run("secret", "delete", "TOKEN")[0] == 0
    assert run("secret", "delete", "TOKEN")[0] == 1


def test_a_newline_at_the_end_is_no_part_of_the_value(run: Run, server: ApiServer) -> None:
    assert run("secret", "create", "A", stdin=b"line\n")[0] == 0
    assert run("secret", "create", "B", stdin=b"line\n\n")[0] == 0
    with server.client(os.environ["OUTGATE_API_KEY"]) as client:
        account_id = client.get("/v1/accounts/me").json()["id"]
    bindings = {"ONE": "A", "TWO": "B"}
    values = server.database.read_now(lambda tx: resolve_secrets(tx, server.services, account_id, bindings, field="x"))
    assert values == {"ONE": "line", "TWO": "line\n"}
