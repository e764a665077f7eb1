"""A devbox that sleeps: its policy is the one of the moment of its resume, from the first packet on."""

import asyncio
import time
from typing import Any

import pytest
from runloop_api_client import APIStatusError, BadRequestError
from runloop_api_client.types import DevboxView

from support.stage import Stage, attempt, run
from support.world import ALLOWED, ALSO, DENIED, IN_NETWORK_A, NETWORK_A

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def _tls(host: Any) -> dict[str, object]:
    return {"kind": "tls", "address": host.address4, "port": 443, "name": host.name}


def test_a_policy_that_changed_meanwhile_holds_from_the_first_packet_after_the_resume(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}])
    # Each boot knocks at everything at once, as soon as there is a process at all.
    knock = (
        f"(curl -sk --max-time 4 https://{ALLOWED.name}/; curl -sk --max-time 4 https://{ALSO.name}/;"
        f" curl -s --max-time 4 http://{IN_NETWORK_A}:8080/) >>~/knocks 2>&1; echo end >>~/knocks"
    )
    box = stage.devbox(policy, launch_commands=[knock])
    # Connections by name and by address, open while it is suspended.
    holds = f"(curl -skN https://{ALLOWED.name}/ >/dev/null 2>&1 &); (nc {IN_NETWORK_A} 9 </dev/zero >/dev/null 2>&1 &)"
    run(box, f"echo kept >/tmp/kept; {holds}; sleep 0.3")
    assert box.suspend().status == "suspended"

    with pytest.raises(BadRequestError, match="in use"):
        policy.delete()
    changed = stage.client.api.network_policies.with_raw_response.update(
        policy.id, allowed_hostnames=[ALSO.name], allowed_cidrs=[]
    )
    assert changed.headers["x-outgate-enforced"] == "1/1", "a suspended devbox holds nothing up"

    since_s = stage.internet.now_s()
    assert box.resume().status == "running"
    knocks = run(box, "cat ~/knocks /tmp/kept").stdout
    before, after = knocks.split("end\n")[:2]
    assert (f"hello from {ALLOWED.name}" in before, f"hello from {ALSO.name}" in before) == (True, False)
    assert (f"hello from {ALLOWED.name}" in after, f"hello from {ALSO.name}" in after) == (False, True)
    assert knocks.endswith("kept\n")
    # What DNS taught it before is forgotten: the allowed name's address is as closed as any other.
    assert [tried.is_answered for tried in attempt(box, _tls(ALLOWED), _tls(DENIED))] == [False, False]
    for address in (ALLOWED.address4, ALLOWED.address6, IN_NETWORK_A, DENIED.address4):
        assert stage.internet.journal(since_s=since_s, address=address).connections == []


def test_idle_devboxes_sleep_and_busy_ones_do_not(stage: Stage) -> None:
    launch: Any = {"lifecycle": {"after_idle": {"idle_time_seconds": 2, "on_idle": "suspend"}}}
    api = stage.client.api.devboxes
    idle, busy = [api.create_and_await_running(launch_parameters=launch) for _ in range(2)]
    try:
        work = api.execute_async(busy.id, command="sleep 4; echo done")
        api.await_suspended(idle.id)
        assert api.retrieve(busy.id).status == "running"
        deadline_s = time.monotonic() + 20
        while api.retrieve(busy.id).status == "running":
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        view = api.await_suspended(busy.id)
        ended_ms = next(entry.transition_time_ms for entry in view.state_transitions if entry.status == "suspending")
        assert isinstance(ended_ms, int)
        assert ended_ms >= busy.create_time_ms + 6_000, "two seconds after its command ended"
        api.resume(busy.id)
        api.await_running(busy.id)
        assert api.executions.retrieve(work.execution_id, devbox_id=busy.id).stdout == "done\n", "outputs are kept"
    finally:
        for box in (idle, busy):
            api.shutdown(box.id)


def await_end(stage: Stage, devbox_id: str) -> DevboxView:
    """The devbox once it has ended by itself."""
    deadline_s = time.monotonic() + 30
    while (view := stage.client.api.devboxes.retrieve(devbox_id)).end_time_ms is None:
        assert time.monotonic() < deadline_s, view
        time.sleep(0.1)
    return view


def test_the_end_of_an_entrypoint_and_of_a_launch_command(stage: Stage) -> None:
    api = stage.client.api.devboxes
    box = api.create(entrypoint="sleep 0.2; exit 3", metadata={"k": "v"})
    ended = await_end(stage, box.id)
    assert (ended.status, ended.shutdown_reason) == ("shutdown", "entrypoint_exit")
    box = api.create(launch_parameters={"launch_commands": ["echo because >&2; exit 4"]})
    ended = await_end(stage, box.id)
    assert (ended.status, ended.failure_reason) == ("failure", "execution_failed")
    assert ended.to_dict()["failure_detail"] == "Launch command 'echo because >&2; exit 4' ended with status 4. because"
    assert ended.state_transitions[-1].failure_reason == "execution_failed"
    with pytest.raises(APIStatusError):
        api.execute(box.id, command="true", command_id="1")


def test_secrets_files_and_objects_are_there_before_the_first_command(stage: Stage) -> None:
    client = stage.client
    name = f"S{int(time.time() * 1000)}"
    client.secret.create(name=name, value="pa55 wörd\n")
    stored = client.storage_object.upload_from_text("from the object store", name="note")
    box = client.devbox.create(
        secrets={"PASSWORD": name},
        environment_variables={"GREETING": "hi $USER"},
        mounts=[
            {"type": "file_mount", "target": "/etc/app/conf", "content": "a = 1\n"},
            {"type": "object_mount", "object_id": stored.id, "object_path": "data/note"},
        ],
        launch_parameters={
            "launch_commands": ['printf "%s|%s|" "$PASSWORD" "$GREETING" >~/seen; cat /etc/app/conf data/note >>~/seen']
        },
    )
    try:
        assert run(box, "cat ~/seen").stdout == "pa55 wörd\n|hi $USER|a = 1\nfrom the object store"
        box.suspend()
        client.secret.update(name, value="another")
        box.resume()
        assert run(box, 'echo "$PASSWORD"').stdout == "another\n", "secrets are read at each boot"
        assert run(box, "cat data/note").stdout == "from the object store"
    finally:
        box.shutdown()
        client.secret.delete(name)


def test_many_sleep_and_wake_at_once(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    boxes = [stage.devbox(policy) for _ in range(3)]

    async def all_of(work: Any) -> None:
        await asyncio.gather(*(asyncio.to_thread(work, box) for box in boxes))

    asyncio.run(all_of(lambda box: box.suspend()))
    asyncio.run(all_of(lambda box: box.resume()))
    fetched = [run(box, f"curl -sk --max-time 8 https://{ALLOWED.name}/").stdout for box in boxes]
    assert fetched == [f"hello from {ALLOWED.name}\n"] * 3
