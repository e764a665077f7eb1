"""The command line against a running server, as a person types it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.stage import LISTEN, Stage
from support.world import ALLOWED, DENIED

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def _environment(stage: Stage, more: Mapping[str, str]) -> dict[str, str]:
    state_dir = str(stage.daemon.state_dir)
    return {**os.environ, "OUTGATE_STATE_DIR": state_dir, "OUTGATE_LISTEN": LISTEN, **more}


def _outgate(
    stage: Stage, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "outgate.cli.main", *arguments]
    variables = _environment(stage, environment or {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=variables)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def _json(stage: Stage, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    return json.loads(_outgate(stage, *arguments, "--json", environment=environment).stdout)


def test_a_policys_life_on_the_command_line(stage: Stage) -> None:
    policy = _json(stage, "policy", "create", "cli-life", "--allow-host", ALLOWED.name)
    assert policy["egress"]["allowed_hostnames"] == [ALLOWED.name]
    assert "cli-life" in _outgate(stage, "policy", "list").stdout
    devbox = _json(stage, "devbox", "create", "--policy", "cli-life", "--name", "cli")
    assert devbox["status"] == "running"
    assert devbox["launch_parameters"]["network_policy_id"] == policy["id"]
    url = f"https://{ALLOWED.name}/"
    reached = _outgate(stage, "devbox", "exec", devbox["id"], "--", "curl", "-sk", "--max-time", "10", url)
    assert reached.stdout == f"hello from {ALLOWED.name}\n"
    _outgate(stage, "devbox", "exec", devbox["id"], f"curl -sk https://{DENIED.name}/", code=6)
    _outgate(stage, "devbox", "exec", devbox["id"], "exit 42", code=42)
    flows = _json(stage, "flows", "--devbox", devbox["id"])
    assert {(flow["hostname"], flow["verdict"]) for flow in flows} >= {(ALLOWED.name, "allow"), (DENIED.name, "deny")}
    assert DENIED.name in _outgate(stage, "flows", "--verdict", "deny").stdout
    _outgate(stage, "policy", "update", "cli-life", "--no-hosts", "--allow-host", "x.org", code=2)
    changed = _json(stage, "policy", "update", "cli-life", "--no-hosts", "--allow-cidr", "45.45.46.0/24:7/tcp")
    assert changed["egress"]["allowed_hostnames"] == []
    assert changed["egress"]["allowed_cidrs"][0]["cidr"] == "45.45.46.0/24"
    _outgate(stage, "devbox", "exec", devbox["id"], "--", "curl", "-sk", "--max-time", "10", url, code=6)
    in_use = _outgate(stage, "policy", "delete", "cli-life", code=1)
    assert devbox["id"] in in_use.stderr
    assert in_use.stderr.count("\n") == 1
    assert _json(stage, "devbox", "shutdown", devbox["id"], "--wait")["status"] == "shutdown"
    assert _json(stage, "devbox", "get", devbox["id"])["status"] == "shutdown"
    assert devbox["id"] in _outgate(stage, "devbox", "list").stdout
    assert _json(stage, "policy", "delete", policy["id"])["id"] == policy["id"]
    _outgate(stage, "policy", "get", policy["id"], code=1)


def test_keys_are_made_listed_and_revoked(stage: Stage) -> None:
    account = _json(stage, "account", "create", "team-of-two")
    assert account["account_id"].startswith("acct_")
    assert "team-of-two" in _outgate(stage, "account", "list").stdout
    made = _json(stage, "key", "create", "--account", "team-of-two", "--name", "ci")
    for key in (account["api_key"], made["api_key"]):
        assert _json(stage, "policy", "list", environment={"OUTGATE_API_KEY": key}) == []
    _outgate(stage, "key", "revoke", made["key_id"])
    refused = _outgate(stage, "policy", "list", code=1, environment={"OUTGATE_API_KEY": made["api_key"]})
    assert "key" in refused.stderr
    keys = {key["id"]: key for key in _json(stage, "key", "list", "--account", "team-of-two")}
    assert keys[made["key_id"]]["revoke_time_ms"] is not None
    assert keys[account["key_id"]]["revoke_time_ms"] is None
    assert made["api_key"] not in json.dumps(keys)


def test_flows_are_followed_until_interrupted(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    # A shell ignores SIGINT in what it starts in the background, and everything below inherits that.
    listens = ["env", "--default-signal=INT"]
    command = [*listens, sys.executable, "-m", "outgate.cli.main", "flows", "--follow", "--json", "--devbox", devbox.id]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**_environment(stage, {}), "PYTHONUNBUFFERED": "1"}
    ) as follower:
        assert follower.stdout is not None
        devbox.cmd.exec(f"curl -sk --max-time 5 https://{DENIED.name}/ || true")
        flow = json.loads(follower.stdout.readline())
        assert (flow["hostname"], flow["verdict"], flow["devbox_id"]) == (DENIED.name, "deny", devbox.id)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=10) == 130


def test_images_are_imported_listed_and_removed(stage: Stage, tmp_path: Path) -> None:
    listed = _json(stage, "image", "list")
    assert ["stock"] in [list(image["names"]) for image in listed]
    missing = _outgate(stage, "image", "import", "/missing", code=2)
    assert "missing" in missing.stderr
    empty = tmp_path / "empty.tar"
    empty.write_bytes(b"\0" * 10240)
    assert _outgate(stage, "image", "import", str(empty), code=1).stderr.startswith("error: ")
    _outgate(stage, "image", "alias", "stock", "base")
    assert "base" in _outgate(stage, "image", "list").stdout
    _outgate(stage, "image", "remove", "base")
    assert "cannot be removed" in _outgate(stage, "image", "remove", "stock", code=1).stderr


def test_mistakes_end_in_one_line_with_the_remedy(stage: Stage) -> None:
    nobody = _outgate(stage, "policy", "list", "--url", "http://127.0.0.1:1", code=1)
    assert nobody.stderr.count("\n") == 1
    assert "does not answer" in nobody.stderr
    no_key = _outgate(stage, "policy", "list", code=1, environment={"OUTGATE_STATE_DIR": "/nonexistent-state"})
    assert "--api-key" in no_key.stderr
    bad_setting = _outgate(stage, "serve", code=1, environment={"OUTGATE_DEFAULT_POLICY": "maybe"})
    assert "OUTGATE_DEFAULT_POLICY" in bad_setting.stderr
    busy = _outgate(stage, "teardown", code=1)
    assert "runs already" in busy.stderr
    url = _outgate(stage, "policy", "create", "x", "--allow-host", "https://x.org/", code=1)
    assert "URL" in url.stderr


def test_doctor_says_whether_the_server_would_start(stage: Stage) -> None:
    found = _json(stage, "doctor", environment=_dns(stage))
    failed = [check for check in found["checks"] if check["grade"] == "fail"]
    assert (found["can_serve"], failed) == (True, [])
    assert "can enforce policies" in _outgate(stage, "doctor", environment=_dns(stage)).stdout


def test_doctor_looks_at_every_part_of_the_running_installation(stage: Stage) -> None:
    settings = stage.daemon.settings
    checks = {
        (check["group"], check["name"]): check for check in _json(stage, "doctor", environment=_dns(stage))["checks"]
    }
    for place in [
        ("host", "CAP_NET_ADMIN"),
        ("installation", "store"),
        ("installation", str(settings.api_key_file)),
        ("installation", str(settings.api_dir)),
        ("network", f"resolver {stage.internet.resolver}:53"),
        ("network", "uplink"),
        ("network", "tracked flows"),
        ("server", "api"),
        ("server", "clock"),
        ("server", "enforcement"),
        ("server", "host local: agent"),
        ("server", "host local: gate"),
        ("server", "host local: revision"),
        ("server", "api key"),
    ]:
        assert checks[place]["grade"] == "pass", checks.get(place, sorted(checks))


def test_doctors_probe_finds_that_the_policy_holds_and_leaves_nothing(stage: Stage) -> None:
    since_s = stage.internet.now_s()
    before = {policy["id"] for policy in _json(stage, "policy", "list")}
    printed = _outgate(stage, "doctor", "--probe", "--probe-host", ALLOWED.name, environment=_dns(stage)).stdout
    for step in ("devbox", "allowed connection", "denied connection", "its record", "removal"):
        assert re.search(rf"pass +{step}", printed), printed
    assert {policy["id"] for policy in _json(stage, "policy", "list")} == before
    boxes = [box for box in _json(stage, "devbox", "list") if (box["name"] or "").startswith("doctor-")]
    assert [box["status"] for box in boxes] == ["shutdown"]
    assert not stage.internet.journal(since_s=since_s).reached("192.0.2.1")


def test_doctor_finds_what_was_broken_and_says_what_to_do(stage: Stage) -> None:
    """Each as a person would find it, and put back after it."""
    key = stage.daemon.settings.api_key_file
    key.chmod(0o644)
    try:
        broken = _outgate(stage, "doctor", code=1, environment={"OUTGATE_UPSTREAM_DNS": "127.0.0.1:9"})
    finally:
        key.chmod(0o600)
    assert re.search(rf"fail +{key}: Its mode is 0644.*→ chmod 0600", broken.stdout)
    assert re.search(r"fail +resolver 127.0.0.1:9: .*→ .*OUTGATE_UPSTREAM_DNS", broken.stdout)
    away = _outgate(stage, "doctor", "--url", "http://127.0.0.1:9", code=1, environment=_dns(stage))
    assert re.search(r"fail +api: .*127.0.0.1:9 does not answer.*→ start it", away.stdout)


def _dns(stage: Stage) -> dict[str, str]:
    return {"OUTGATE_UPSTREAM_DNS": stage.internet.resolver}
