"""``outgate webhook`` against the real api: what it sends, what it prints, how it ends."""

import json
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from outgate.cli import main
from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer
from support.webhook_receiver import Receiver, Reply, run_receiver

Run = Callable[..., tuple[int, str, str]]
SETTINGS = ApiSettings(webhook_networks=(ip_network("127.0.0.0/8"),), webhook_http_hosts=(IPv4Address("127.0.0.1"),))
URL = "https://hooks.example/x"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api"), SETTINGS) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
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

    def run_it(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["outgate", "webhook", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run_it


def test_the_secret_is_printed_once(run: Run, tmp_path: Path) -> None:
    code, out, err = run("create", URL, "--description", "mine")
    assert code == 0
    assert "only time" in err
    secret = out.split("secret: ")[1].strip()
    assert secret.startswith("whsec_")
    assert "flow.denied, host.warning" in out
    (view,) = json.loads(run("list", "--json")[1])
    assert (view["url"], view["description"]) == (URL, "mine")
    for words in (("list",), ("get", view["id"]), ("get", view["id"], "--json")):
        code, out, _ = run(*words)
        assert (code, URL in out, secret in out) == (0, True, False)
    code, out, _ = run("rotate", view["id"], "--overlap", "0", "--json")
    assert json.loads(out)["secret"] not in ("", secret)


def test_updates_change_what_they_name(run: Run) -> None:
    made = json.loads(run("create", URL, "--event", "flow.reported", "--devbox", "dbx_" + "0" * 21, "--json")[1])
    assert (made["events"], made["devbox_ids"]) == (["flow.reported"], ["dbx_" + "0" * 21])
    changed = json.loads(run("update", made["id"], "--off", "--to", f"{URL}/y", "--devbox", "", "--json")[1])
    assert (changed["enabled"], changed["url"], changed["devbox_ids"]) == (False, f"{URL}/y", [])
    assert changed["events"] == ["flow.reported"]
    assert run("delete", made["id"])[0] == 0
    code, _, err = run("get", made["id"])
    assert (code, "not found" in err) == (1, True)
    code, _, err = run("create", "http://hooks.example/")
    assert (code, "OUTGATE_WEBHOOK_HTTP_HOSTS" in err) == (1, True)


def test_a_test_says_how_it_ended(run: Run, receiver: Receiver) -> None:
    receiver.replies = [Reply(), Reply(404)]
    webhook_id = json.loads(run("create", receiver.url, "--json")[1])["id"]
    code, _, err = run("test", webhook_id)
    assert (code, "answered 204" in err) == (0, True)
    code, out, _ = run("test", webhook_id, "--json")
    assert (code, json.loads(out)["response_code"]) == (1, 404)
    code, out, _ = run("deliveries", webhook_id)
    assert [line.split("\t")[1:5] for line in out.splitlines()[1:]] == [
        ["webhook.test", "failed", "1", "404"],
        ["webhook.test", "delivered", "1", "204"],
    ]
    assert len(json.loads(run("deliveries", webhook_id, "--limit", "1", "--json")[1])) == 1
