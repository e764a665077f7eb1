"""schemathesis against the document at /openapi.json: generated requests to all operations, right and wrong ones.

How many there are is fixed and they are the same each time, so that a slow machine does not test less.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outgate.api import devbox_bodies, execution_bodies
from outgate.client import lookups
from outgate.control import evictions, flows
from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer

HOOKS = '''
import schemathesis

# What a schema cannot say: what is there and in which state, what this installation serves, the rest of a range.
UNSAYABLE = {
    "blueprint_not_built", "devbox_not_running", "end_port_before_port", "missing", "name_taken", "object_empty", "object_not_ready",
    "not_served", "policy_too_complex", "ssh_off", "tunnels_off", "unknown_blueprint", "unknown_config", "unknown_network_policy",
    "unknown_object", "unknown_secret", "unknown_snapshot", "wrong_status",
}
# Values that go with some others only.
DEPENDENT = (
    "end_port", "devbox_id", "address", "network_policy_id", "blueprint_name", "snapshot_id", "after_idle",
    "dockerfile", "build_args", "build_context",
    "custom_cpu_cores", "custom_gb_memory", "custom_disk_size", "auth_mechanism.key", "scopes",
    "].resource_type", "].name", "expires_at_ms",
)

@schemathesis.check
def refusals_of_valid_requests_are_explained(ctx, response, case):
    """A request that fits the schema is refused only for what no schema can say."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    body = response.json()
    is_dependent = body["code"] == "invalid_value" and body.get("field", "").endswith(DEPENDENT)
    is_double = body["code"] == "invalid_value" and "is among" in body["message"]
    assert body["code"] in UNSAYABLE or is_dependent or is_double, body
'''
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "404", "408", "409", "429"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "411", "413", "429"]
"""


@pytest.mark.timeout(900)
def test_values_at_the_edges_of_the_schema_find_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value of each operation at the edges of what is allowed, and just beyond them."""
    check_finds_nothing(tmp_path, monkeypatch, "--phases=examples,coverage")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_values_out_of_nowhere_find_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_finds_nothing(tmp_path, monkeypatch, "--phases=fuzzing", "--max-examples=20")


def check_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *how: str) -> None:
    # Generated requests wait for things that never happen; let them not wait long.
    monkeypatch.setattr(devbox_bodies, "WAIT_S_DEFAULT", 0.05)
    monkeypatch.setattr(devbox_bodies, "WAIT_S_MAX", 0.1)
    monkeypatch.setattr(execution_bodies, "HOLD_S", 0.1)
    monkeypatch.setattr(evictions, "WATCH_S_MAX", 0.1)
    monkeypatch.setattr(evictions, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(flows, "FOLLOW_S_MAX", 0.1)
    monkeypatch.setattr(flows, "LOOK_EVERY_S", 0.05)
    # Generated webhooks lead nowhere; nobody is asked where that is.
    monkeypatch.setattr(lookups, "_look_up", lambda _host, _port: [])
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # It shows wrong keys on purpose, and wants to be told each time that they are.
    settings = ApiSettings(policies_max=1_000_000, webhooks_max=1_000_000, enforce_wait_s_max=0.5, auth_failures_max=0)
    with ApiServer(tmp_path, settings, runs_commands=False) as server:
        key = server.new_account("schemathesis").api_key
        command = [
            str(Path(sys.executable).with_name("st")),
            "run",
            f"{server.base_url}/openapi.json",
            f"--header=Authorization: Bearer {key}",
            *how,
            "--generation-deterministic",
            "--request-timeout=10",
            "--no-color",
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
