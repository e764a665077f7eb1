"""Devboxes from snapshots: what comes along, and that none of it widens what the new one may reach."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runloop_api_client import APIError, BadRequestError, ConflictError
from runloop_api_client.lib.polling import PollingConfig
from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.snapshot import Snapshot

from support.stage import Stage, attempt, run
from support.world import ALLOWED, ALSO, DENIED

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

SOON = PollingConfig(interval_seconds=0.1, max_attempts=600)
PATIENCE_S = 60.0


def _tls(address: str, name: str) -> dict[str, object]:
    return {"kind": "tls", "address": address, "port": 443, "name": name}


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def wait_for_status(devbox: Devbox, status: str) -> None:
    until(lambda: devbox.get_info().status == status)


def test_the_disk_comes_along_and_the_policy_is_the_new_ones_from_its_first_packet(stage: Stage) -> None:
    narrow = stage.policy(allowed_hostnames=[ALSO.name])
    source = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]), environment={"TOKEN": "swordfish"})
    filled = run(
        source,
        f"echo kept >~/kept; curl -sk https://{ALLOWED.name}/ >~/fetched; (sleep 3000 >/dev/null 2>&1 &)"
        # A flow that is open while the disk is copied.
        f"; (curl -skN https://{ALLOWED.name}/ >/dev/null 2>&1 &) ",
    )
    assert filled.exit_code == 0
    snapshot = source.snapshot_disk(name="s", polling_config=SOON)

    since_s = stage.internet.now_s()
    allowed = f"curl -sk --max-time 5 https://{ALSO.name}/ >/tmp/allowed"
    denied = f"! curl -sk --max-time 5 https://{ALLOWED.name}/ && ! curl -sk --max-time 5 https://{ALLOWED.address4}/"
    heir = stage.devbox(narrow, launch_commands=[allowed, denied], snapshot=snapshot)
    assert run(heir, "cat ~/kept ~/fetched /tmp/allowed").stdout == (
        f"kept\nhello from {ALLOWED.name}\nhello from {ALSO.name}\n"
    )
    # What DNS taught the source is not known here: its address is as closed as any other.
    by_address, by_name = attempt(heir, _tls(ALLOWED.address4, ALLOWED.name), {"kind": "lookup", "name": ALLOWED.name})
    assert not by_address.is_answered
    assert not by_name.is_answered
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(ALLOWED.address4)
    assert not journal.reached(ALLOWED.address6)
    assert ALLOWED.name not in {query.name for query in journal.queries}
    # Neither processes nor the environment come along, and its addresses are its own.
    assert run(heir, "pgrep -fx 'sleep 3000' | wc -l; echo [$TOKEN]").stdout == "0\n[]\n"
    # The source goes on as before.
    going_on = run(source, f"pgrep -fx 'sleep 3000' | wc -l; curl -sk https://{ALLOWED.name}/")
    assert going_on.stdout == f"1\nhello from {ALLOWED.name}\n"
    snapshot.delete()


def test_without_a_policy_of_its_own_it_has_that_of_the_source(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    source = stage.devbox(policy)
    snapshot = source.snapshot_disk(polling_config=SOON)
    source.shutdown()
    since_s = stage.internet.now_s()
    heir = stage.devbox(None, snapshot=snapshot)
    assert heir.get_info().launch_parameters.network_policy_id == policy.id
    assert run(heir, f"curl -sk https://{ALLOWED.name}/").stdout == f"hello from {ALLOWED.name}\n"
    assert run(heir, f"curl -sk --max-time 5 https://{DENIED.name}/").exit_code != 0
    # It obeys the policy as it is, not as it was.
    policy.update(allowed_hostnames=[])
    assert run(heir, f"curl -sk --max-time 5 https://{ALLOWED.name}/").exit_code != 0
    assert not stage.internet.journal(since_s=since_s).reached(DENIED.address4)
    snapshot.delete()


def test_a_suspended_devbox_is_snapshotted_and_resumed(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    source = stage.devbox(policy)
    assert run(source, "echo before >~/file; mkdir ~/d; echo x >~/d/x").exit_code == 0
    source.suspend()
    wait_for_status(source, "suspended")
    first = source.snapshot_disk(polling_config=SOON)
    source.resume()
    wait_for_status(source, "running")
    assert run(source, "cat ~/file; rm -r ~/d; echo after >~/file").stdout == "before\n"
    second = source.snapshot_disk(polling_config=SOON)
    from_first, from_second = (stage.devbox(policy, snapshot=snapshot) for snapshot in (first, second))
    # Both go on when the snapshots are gone, also over a suspension of their own.
    for snapshot in (first, second):
        snapshot.delete()
        assert snapshot.get_info().status == "deleted"
    from_first.suspend()
    wait_for_status(from_first, "suspended")
    from_first.resume()
    wait_for_status(from_first, "running")
    assert run(from_first, "cat ~/file ~/d/x").stdout == "before\nx\n"
    assert run(from_second, "cat ~/file; ls ~/d 2>&1 | grep -c such").stdout == "after\n1\n"
    with pytest.raises(BadRequestError, match="no snapshot"):
        stage.devbox(policy, snapshot=first)


def test_a_shutdown_waits_for_a_snapshot_unless_it_is_forced(stage: Stage) -> None:
    source = stage.devbox(None)
    assert run(source, "head -c 300000000 /dev/urandom >~/much").exit_code == 0
    snapshot = source.snapshot_disk_async()
    try:
        with pytest.raises(ConflictError, match="snapshot"):
            source.shutdown()
    except pytest.fail.Exception:  # the host was quicker
        assert snapshot.get_info().status == "complete"
    snapshot.await_completed(polling_config=SOON)
    forced = source.snapshot_disk_async()
    stage.client.api.devboxes.shutdown(source.id, force="true")
    until(lambda: forced.get_info().status in ("complete", "error"))
    snapshot.delete()
    forced.delete()


def find_part(stage: Stage, module: str) -> int:
    """The process of ``outgate serve`` that runs ``module``."""
    children = Path(f"/proc/{stage.daemon.pid}/task/{stage.daemon.pid}/children").read_text().split()
    (found,) = (int(pid) for pid in children if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def test_a_snapshot_whose_agent_or_api_is_killed_ends_and_the_devbox_goes_on(stage: Stage) -> None:
    source = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    assert run(source, "mkdir ~/many; cd ~/many; seq 10000 | xargs touch; echo kept >~/kept").exit_code == 0
    made: list[Snapshot] = []
    for module in ("outgate.server.agent_process", "outgate.server.api_process"):
        made.append(source.snapshot_disk_async())
        time.sleep(0.1)
        os.kill(find_part(stage, module), signal.SIGKILL)
        until(lambda: _status(made[-1]) in ("complete", "error"))
        # It may have been frozen when its agent died.
        until(lambda: _answers(source))
    made.append(source.snapshot_disk(polling_config=SOON))
    assert run(source, "cat ~/kept").stdout == "kept\n"
    for snapshot in made:
        if _status(snapshot) == "complete":
            heir = stage.devbox(None, snapshot=snapshot)
            assert run(heir, "cat ~/kept; ls ~/many | wc -l").stdout == "kept\n10000\n"
        snapshot.delete()
    until(lambda: not list((stage.daemon.settings.runtime_dir / "trash").iterdir()))


def _status(snapshot: Snapshot) -> str:
    try:
        return snapshot.get_info().status
    except APIError:
        return "unknown"


def _answers(devbox: Devbox) -> bool:
    try:
        return run(devbox, "true").exit_code == 0
    except APIError:
        return False
