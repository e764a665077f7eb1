"""``outgate snapshot`` against the real server with a host that only pretends."""

import json
from pathlib import Path

import pytest

from outgate.cli import main
from outgate.model.snapshots import SnapshotPhase, SnapshotState
from support.api_server import ApiServer


def test_create_list_and_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ApiServer(tmp_path) as server:
        key = server.new_account("cli").api_key

        def run(*words: str) -> tuple[int, str, str]:
            arguments = ["outgate", "snapshot", *words, "--url", server.base_url, "--api-key", key]
            monkeypatch.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as end:
                main.main()
            printed = capsys.readouterr()
            return (end.value.code if isinstance(end.value.code, int) else 0), printed.out, printed.err

        with server.client(key) as client:
            box = client.post("/v1/devboxes/create_and_await_running").json()["id"]
        code, out, _ = run("create", box, "--name", "n", "--message", "m", "--metadata", "k=v=w", "--json")
        made = json.loads(out)
        assert (code, made["name"], made["commit_message"], made["metadata"]) == (0, "n", "m", {"k": "v=w"})
        assert (made["source_devbox_id"], made["size_bytes"]) == (box, 4096)

        code, out, _ = run("list", "--devbox", box)
        assert (code, out.splitlines()[1].split("\t")[:4]) == (0, [made["id"], "n", box, "0.0 MiB"])
        assert json.loads(run("list", "--json")[1]) == [made]
        assert json.loads(run("list", "--devbox", "dbx_other", "--json")[1]) == []

        code, _, err = run("delete", made["id"])
        assert (code, made["id"] in err) == (0, True)
        code, _, err = run("delete", made["id"])
        assert (code, "not found" in err) == (1, True)

        server.gateway.snapshot_outcome = SnapshotState(SnapshotPhase.ERROR, detail="No room.")
        code, _, err = run("create", box)
        assert (code, "No room." in err) == (1, True)
        code, _, err = run("create", box, "--metadata", "novalue")
        # Wrong usage, as with every other command.
        assert (code, "NAME=VALUE" in err) == (2, True)
