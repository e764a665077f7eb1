"""The policy of a build: everything that the build does is under it, and nothing of it reaches the devboxes."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from runloop_api_client import BadRequestError

from support.stage import Stage, open_stage, run
from support.world import ALLOWED, ALSO, DENIED, Host, populate

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed"),
]

BASE = "ubuntu:22.04"


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    with open_stage() as stage:
        populate(stage.internet)
        _outgate(stage, "image", "alias", BASE, "stock")
        yield stage


def _outgate(stage: Stage, *words: str) -> str:
    variables = {**os.environ, "OUTGATE_STATE_DIR": str(stage.daemon.state_dir), "NO_COLOR": "1"}
    command = (sys.executable, "-m", "outgate.cli.main", *words)
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _curl(host: Host, scheme: str = "https") -> str:
    return f"curl -sk --max-time 5 {scheme}://{host.name}/"


def _reached(stage: Stage, host: Host, since_s: float) -> bool:
    journal = stage.internet.journal(since_s=since_s)
    named = host.name in {query.name for query in journal.queries}
    return named or journal.reached(host.address4) or journal.reached(host.address6)


def test_setup_commands_are_under_the_builds_policy_and_devboxes_under_theirs(stage: Stage) -> None:
    since_s = stage.internet.now_s()
    at_build = stage.policy(allowed_hostnames=[ALLOWED.name])
    at_launch = stage.policy(allowed_hostnames=[ALSO.name])
    made = stage.blueprint(
        at_build,
        system_setup_commands=[
            f"{_curl(ALLOWED)} >/opt/allowed && id -u >/opt/who",
            f"! {_curl(DENIED)} && ! curl -sk --max-time 5 https://{DENIED.address4}/ && ! {_curl(ALSO)}",
        ],
        file_mounts={"/etc/mounted": "by root", "own": "by the user"},
        launch_parameters={"network_policy_id": at_launch.id},
    )
    stage.await_built(made.id)
    assert _reached(stage, ALLOWED, since_s)
    assert not _reached(stage, DENIED, since_s)
    assert not _reached(stage, ALSO, since_s)

    devbox = stage.devbox_from(made.id)
    info = devbox.get_info()
    assert info.launch_parameters.network_policy_id == at_launch.id
    seen = run(devbox, "cat /opt/allowed /opt/who /etc/mounted ~/own; id -u")
    assert seen.stdout == f"hello from {ALLOWED.name}\n0\nby rootby the user1000\n"
    since_s = stage.internet.now_s()
    assert run(devbox, _curl(ALSO)).stdout == f"hello from {ALSO.name}\n"
    assert run(devbox, _curl(ALLOWED)).exit_code != 0
    assert not _reached(stage, ALLOWED, since_s)

    own = stage.devbox_from(made.id, stage.policy(allowed_hostnames=[DENIED.name]))
    since_s = stage.internet.now_s()
    assert run(own, _curl(DENIED)).stdout == f"hello from {DENIED.name}\n"
    assert run(own, _curl(ALSO)).exit_code != 0
    assert not _reached(stage, ALSO, since_s)


def test_everything_a_dockerfile_does_is_under_the_builds_policy(stage: Stage) -> None:
    since_s = stage.internet.now_s()
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    made = stage.blueprint(
        policy,
        dockerfile=(
            f"FROM {BASE} AS fetched\nADD http://{ALLOWED.name}/ /added\n"
            f"FROM {BASE}\nARG WORD\nENV SAID=$WORD\nRUN {_curl(ALLOWED)} >/opt/ran\n"
            f"RUN ! {_curl(DENIED)} && ! curl -sk --max-time 5 https://{DENIED.address4}/\n"
            "COPY --from=fetched /added /opt/added\n"
        ),
        build_args={"WORD": "a word"},
        system_setup_commands=["cat /opt/ran /opt/added; echo $SAID >/opt/said"],
    )
    _, said = stage.await_built(made.id)
    hello = f"hello from {ALLOWED.name}"
    assert said[-2:] == [hello, hello]
    assert not _reached(stage, DENIED, since_s)
    devbox = stage.devbox_from(made.id, policy)
    assert run(devbox, "cat /opt/said; echo $SAID").stdout == "a word\na word\n"

    for step in (f"ADD http://{DENIED.name}/ /added", f"RUN {_curl(DENIED)}"):
        denied = stage.blueprint(policy, dockerfile=f"FROM {BASE}\n{step}\n")
        view, _ = stage.await_built(denied.id, status="failed")
        assert view.failure_reason == "build_failed"
    assert not _reached(stage, DENIED, since_s)


def test_a_policy_that_is_tightened_binds_a_running_build_at_once(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name, ALSO.name])
    since_s = stage.internet.now_s()
    loop = f"while :; do {_curl(ALSO)}; {_curl(ALLOWED)}; sleep 0.05; done"
    made = stage.blueprint(policy, dockerfile=f"FROM {BASE}\nRUN {loop}\n")
    _await(lambda: _reached(stage, ALSO, since_s) and _reached(stage, ALLOWED, since_s))
    answer = stage.client.api.network_policies.with_raw_response.update(policy.id, allowed_hostnames=[ALLOWED.name])
    closed_s = stage.internet.now_s()
    assert answer.headers["x-outgate-enforced"] == "1/1"
    _await(lambda: bool(stage.internet.journal(since_s=closed_s, host=ALLOWED.name).connections))
    assert not stage.internet.journal(since_s=closed_s, host=ALSO.name).connections

    with pytest.raises(BadRequestError, match=made.id):
        policy.delete()
    stage.client.api.blueprints.delete(made.id)
    # Cancelled: its name is free again at once, and soon nothing of it runs.
    _await(lambda: not stage.internet.journal(since_s=stage.internet.now_s() - 1.0).connections)
    assert made.id not in _outgate(stage, "image", "list")


def test_a_build_begins_anew_when_the_agent_dies_in_it(stage: Stage) -> None:
    made = stage.blueprint(
        stage.policy(), system_setup_commands=["echo attempt", "test -e /opt/x && exit 1; touch /opt/x; sleep 3"]
    )
    _await(lambda: bool(stage.client.api.blueprints.logs(made.id).logs))
    children = Path(f"/proc/{stage.daemon.pid}/task/{stage.daemon.pid}/children").read_text().split()
    (agent,) = (pid for pid in children if b"agent_process" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(agent), signal.SIGKILL)
    _, said = stage.await_built(made.id)
    assert said.count("attempt") == 2
    assert run(stage.devbox_from(made.id), "ls /opt/x").exit_code == 0


def test_contexts_secrets_and_bases(stage: Stage) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("dir/file")
        info.size = 7
        tar.addfile(info, io.BytesIO(b"content"))
    stored = stage.client.api.objects.create(name="context.tgz", content_type="tgz")
    assert stored.upload_url is not None
    httpx.put(stored.upload_url, content=packed.getvalue()).raise_for_status()
    stage.client.api.objects.complete(stored.id)
    stage.client.api.secrets.create(name="THE_SECRET", value="hush-hush")
    base = stage.blueprint(
        dockerfile=(
            f"FROM {BASE}\nCOPY dir/file /opt/file\n"
            'RUN --mount=type=secret,id=TOKEN test "$(wc -c </run/secrets/TOKEN)" = 9 && ! env | grep TOKEN\n'
        ),
        build_context={"type": "object", "object_id": stored.id},
        secrets={"TOKEN": "THE_SECRET"},
    )
    stage.await_built(base.id)
    upon = stage.blueprint(
        base_blueprint_id=base.id,
        system_setup_commands=['test "${#TOKEN}" = 9', "cat /opt/file >/opt/copied"],
        secrets={"TOKEN": "THE_SECRET"},
    )
    stage.await_built(upon.id)
    devbox = stage.devbox_from(upon.id)
    seen = run(devbox, "cat /opt/copied; env | grep TOKEN; grep -rs hush-hush /opt /etc /run /tmp; true")
    assert seen.stdout == "content"
    for blueprint in (base, upon):
        assert "hush-hush" not in str(stage.client.api.blueprints.retrieve(blueprint.id))


def test_builds_that_cannot_be_say_why(stage: Stage) -> None:
    unknown = stage.blueprint(dockerfile="FROM registry.example/base:1\n")
    _, said = stage.await_built(unknown.id, status="failed")
    assert "outgate image import PATH --name registry.example/base:1" in said[-1]
    broken = stage.blueprint(system_setup_commands=["echo before", "exit 3", "echo after"])
    _, said = stage.await_built(broken.id, status="failed")
    assert said == ["$ echo before", "before", "$ exit 3", "Setup command 'exit 3' ended with status 3."]
    hungry = stage.blueprint(
        launch_parameters={"resource_size_request": "X_SMALL"},
        system_setup_commands=["python3 -c 'x = bytearray(3 << 30)'"],
    )
    view, _ = stage.await_built(hungry.id, status="failed")
    assert view.failure_reason == "out_of_memory"
    for blueprint in (unknown, broken, hungry):
        assert blueprint.id not in _outgate(stage, "image", "list")


def test_the_command_line_builds_and_shows(stage: Stage) -> None:
    shown = _outgate(
        stage, "blueprint", "create", "by-hand", "--setup", "echo hello", "--json", "--url", stage.daemon.url
    )
    assert '"build_complete"' in shown
    listed = _outgate(stage, "blueprint", "list", "--url", stage.daemon.url)
    blueprint_id = next(word for word in listed.split() if word.startswith("bpt_"))
    assert "by-hand" in listed
    assert "hello" in _outgate(stage, "blueprint", "logs", blueprint_id, "--url", stage.daemon.url)
    assert "build_complete" in _outgate(stage, "blueprint", "get", blueprint_id, "--url", stage.daemon.url)
    _outgate(stage, "blueprint", "delete", blueprint_id, "--url", stage.daemon.url)
    assert "by-hand" not in _outgate(stage, "blueprint", "list", "--url", stage.daemon.url)


def _await(condition: Callable[[], bool], wait_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.1)
