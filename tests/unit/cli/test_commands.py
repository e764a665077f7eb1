"""Commands against a stand-in for the API: what they send, what they print, how they end."""

import json
from pathlib import Path

import pytest

from support.cli_rig import Run

VIEW = {
    "id": "npol_1",
    "name": "web",
    "description": None,
    "create_time_ms": 0,
    "update_time_ms": 0,
    "egress": {
        "allow_all": False,
        "allow_devbox_to_devbox": False,
        "allow_agent_gateway": False,
        "allow_mcp_gateway": False,
        "allow_runloop_mirrors": False,
        "allowed_hostnames": ["x.org"],
        "allowed_cidrs": [{"cidr": "10.0.0.0/8", "ports": [{"port": 443}]}],
    },
}
DEVBOX = {
    "id": "dbx_1",
    "name": None,
    "status": "provisioning",
    "create_time_ms": 0,
    "end_time_ms": None,
    "launch_parameters": {"network_policy_id": "npol_1"},
}


def test_create_sends_what_was_given_and_nothing_else(run: Run) -> None:
    arguments = [
        "policy",
        "create",
        "web",
        "--allow-host",
        "x.org",
        "--allow-host",
        "*.x.org",
        "--allow-cidr",
        "10.0.0.0/8:443",
    ]
    code, out, _, api = run(arguments, {"POST /v1/network-policies": VIEW})
    assert code == 0
    assert api.bodies["POST /v1/network-policies"] == {
        "name": "web",
        "allowed_hostnames": ["x.org", "*.x.org"],
        "allowed_cidrs": [{"cidr": "10.0.0.0/8", "ports": [{"port": 443}]}],
    }
    assert "npol_1" in out
    assert "10.0.0.0/8:443" in out


def test_update_by_name_keeps_what_is_not_given_and_clears_what_is_told(run: Run) -> None:
    answers = {
        "GET /v1/network-policies": {"network_policies": [{**VIEW, "name": "web2"}, VIEW], "has_more": False},
        "POST /v1/network-policies/npol_1": VIEW,
    }
    code, _, _, api = run(["policy", "update", "web", "--no-hosts", "--no-allow-all"], answers)
    assert code == 0
    assert api.bodies["POST /v1/network-policies/npol_1"] == {"allowed_hostnames": [], "allow_all": False}


def test_a_list_cannot_be_emptied_and_filled_at_once(run: Run) -> None:
    code, _, err, api = run(["policy", "update", "web", "--no-hosts", "--allow-host", "x.org"], {})
    assert code == 2
    assert "--no-hosts" in err
    assert api.bodies == {}


def test_options_win_over_the_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"allow_all": True, "allowed_hostnames": ["y.org"], "description": "from the file"}))
    arguments = ["policy", "create", "web", "--file", str(file), "--allow-host", "x.org"]
    _, _, _, api = run(arguments, {"POST /v1/network-policies": VIEW})
    assert api.bodies["POST /v1/network-policies"] == {
        "name": "web",
        "allow_all": True,
        "allowed_hostnames": ["x.org"],
        "description": "from the file",
    }


def test_list_prints_lines_for_pipes_and_json_for_programs(run: Run) -> None:
    answers = {"GET /v1/network-policies": {"network_policies": [VIEW], "has_more": False}}
    _, out, _, _ = run(["policy", "list"], answers)
    assert out.splitlines() == [
        "id\tname\tlets out\tupdated",
        "npol_1\tweb\t1 host, 1 network\t1970-01-01 00:00:00",
    ]
    _, out, _, _ = run(["policy", "list", "--json"], answers)
    assert json.loads(out) == [VIEW]


@pytest.mark.parametrize(("target", "key"), [("x.org", "hostname"), ("10.0.0.1", "address"), ("2a0f::1", "address")])
def test_explain_tells_names_from_addresses(run: Run, target: str, key: str) -> None:
    verdict: dict[str, object] = {
        "verdict": "deny",
        "rule": None,
        "revision": 1,
        "reason": "no_rule",
        "sentence": "No rule covers it.",
        "checks": [],
    }
    path = "POST /v1/network-policies/npol_1/explain"
    code, out, _, api = run(["policy", "explain", "npol_1", target], {path: verdict})
    assert code == 0
    assert api.bodies[path] == {key: target, "port": 443, "protocol": "tcp"}
    assert "No rule covers it." in out


def test_devbox_create_waits_until_it_runs(run: Run) -> None:
    answers = {
        "POST /v1/devboxes": DEVBOX,
        "POST /v1/devboxes/dbx_1/wait_for_status": {**DEVBOX, "status": "running"},
    }
    arguments = ["devbox", "create", "--policy", "npol_1", "--env", "A=b=c", "--root", "--json"]
    code, out, _, api = run(arguments, answers)
    assert code == 0
    assert json.loads(out)["status"] == "running"
    assert api.bodies["POST /v1/devboxes"] == {
        "launch_parameters": {"network_policy_id": "npol_1", "user_parameters": {"username": "root", "uid": 0}},
        "environment_variables": {"A": "b=c"},
    }


@pytest.mark.parametrize(
    ("option", "value", "sent"),
    [
        ("--blueprint", "bpt_1", {"blueprint_id": "bpt_1"}),
        ("--blueprint", "tools", {"blueprint_name": "tools"}),
        ("--snapshot", "snp_1", {"snapshot_id": "snp_1"}),
        ("--tunnel", "authenticated", {"tunnel": {"auth_mode": "authenticated"}}),
    ],
)
def test_devbox_create_says_what_to_start_from(run: Run, option: str, value: str, sent: dict[str, object]) -> None:
    answers = {"POST /v1/devboxes": {**DEVBOX, **sent, "tunnel": {"tunnel_key": "k", "auth_token": "t"}}}
    code, out, _, api = run(["devbox", "create", "--no-wait", option, value], answers)
    assert code == 0
    assert api.bodies["POST /v1/devboxes"] == {"launch_parameters": {}, "environment_variables": {}, **sent}
    assert [line.split() for line in out.splitlines()][-3:-1] == [["tunnel:", "k"], ["tunnel", "token:", "t"]]


def test_a_devbox_starts_from_one_disk(run: Run) -> None:
    code, _, err, api = run(["devbox", "create", "--blueprint", "tools", "--snapshot", "snp_1"], {})
    assert code == 2
    assert "--snapshot" in err
    assert api.bodies == {}
    assert run(["devbox", "create", "--tunnel", "ajar"], {})[0] == 2


@pytest.mark.parametrize(
    ("command", "meanwhile", "done"), [("suspend", "suspending", "suspended"), ("resume", "provisioning", "running")]
)
def test_suspend_and_resume_wait_until_it_is_done(run: Run, command: str, meanwhile: str, done: str) -> None:
    path, wait = f"POST /v1/devboxes/dbx_1/{command}", "POST /v1/devboxes/dbx_1/wait_for_status"
    answers: dict[str, object] = {path: {**DEVBOX, "status": meanwhile}, wait: {**DEVBOX, "status": done}}
    code, out, err, api = run(["devbox", command, "dbx_1"], answers)
    assert (code, out, err.splitlines()[-1]) == (0, "", f"dbx_1 is {done}")
    assert api.bodies[wait] == {"statuses": [done, "failure", "shutdown"], "timeout_seconds": 25}
    code, out, _, _ = run(["devbox", command, "dbx_1", "--json"], answers)
    assert (code, json.loads(out)["status"]) == (0, done)
    code, out, err, api = run(["devbox", command, "dbx_1", "--no-wait"], answers)
    assert (code, out, err, wait in api.bodies) == (0, "", f"dbx_1 is {meanwhile}\n", False)


def test_a_devbox_that_ends_instead_or_is_in_another_status_is_an_error(run: Run) -> None:
    ended = {**DEVBOX, "status": "shutdown", "shutdown_reason": "keep_alive_timeout"}
    answers: dict[str, object] = {
        "POST /v1/devboxes/dbx_1/suspend": {**DEVBOX, "status": "suspending"},
        "POST /v1/devboxes/dbx_1/resume": (400, {"message": "only a suspended devbox can be resumed"}),
        "POST /v1/devboxes/dbx_1/wait_for_status": ended,
    }
    code, out, err, _ = run(["devbox", "suspend", "dbx_1"], answers)
    assert (code, out, err.splitlines()[-1]) == (1, "", "error: dbx_1 is shutdown: keep_alive_timeout.")
    code, out, err, _ = run(["devbox", "resume", "dbx_1"], answers)
    assert (code, out, err) == (1, "", "error: only a suspended devbox can be resumed\n")


def test_exec_ends_as_the_command_did_and_passes_its_output_on(run: Run) -> None:
    execution = {
        "execution_id": "exec_1",
        "status": "completed",
        "exit_status": 7,
        "stdout": "out\n",
        "stderr": "err\n",
    }
    code, out, err, api = run(
        ["devbox", "exec", "dbx_1", "--", "ls", "-l", "a b"], {"POST /v1/devboxes/dbx_1/execute": execution}
    )
    assert (code, out, err) == (7, "out\n", "err\n")
    body = api.bodies["POST /v1/devboxes/dbx_1/execute"]
    assert isinstance(body, dict)
    assert body["command"] == "ls -l 'a b'"


def test_a_devbox_that_fails_to_start_is_an_error_with_its_reason(run: Run) -> None:
    failed = {**DEVBOX, "status": "failure", "failure_reason": "execution_failed"}
    answers: dict[str, object] = {"POST /v1/devboxes": DEVBOX, "POST /v1/devboxes/dbx_1/wait_for_status": failed}
    code, out, err, _ = run(["devbox", "create"], answers)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "error: dbx_1 is failure: execution_failed."


def test_a_refusal_is_one_line_with_the_servers_words(run: Run) -> None:
    refusal = (400, {"message": "allowed_hostnames[0]: 'x:1' holds a port.\nUse x.", "code": "invalid_hostname"})
    code, out, err, _ = run(["policy", "create", "web", "--allow-host", "x:1"], {"POST /v1/network-policies": refusal})
    assert (code, out, err) == (1, "", "error: allowed_hostnames[0]: 'x:1' holds a port.\\nUse x.\n")


def test_wrong_usage_ends_with_two(run: Run) -> None:
    assert run(["policy", "creat"], {})[0] == 2
    assert run(["devbox", "create", "--env", "no-value"], {})[0] == 2
