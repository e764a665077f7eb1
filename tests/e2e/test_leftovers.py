"""A hundred devboxes start, work and stop in one run, and nothing of them is left."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from runloop_api_client.sdk.devbox import Devbox

from outgate.dataplane.netns import entered, list_namespaces
from outgate.settings import Settings
from support.stage import Stage, run
from support.world import ALLOWED, IN_NETWORK_A, NETWORK_A

DEVBOXES = 100
AT_ONCE = 4
SETTLED_S_MAX = 30.0

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(420)]


@dataclass(frozen=True, slots=True)
class Traces:
    """What a devbox leaves on a host while it is there."""

    namespaces: tuple[str, ...]
    mounts: int
    cgroups: int
    processes: int
    elements: dict[str, int]
    links: int
    tracked_flows: int


def _observe(stage: Stage) -> Traces:
    settings = stage.daemon.settings
    router = f"outgate-{settings.instance_id}"
    with entered(router):
        table = json.loads(
            subprocess.run(["nft", "-j", "list", "table", "inet", "outgate"], check=True, capture_output=True).stdout
        )
        links = len(json.loads(subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout))
        tracked = subprocess.run(["conntrack", "-L"], check=True, capture_output=True, text=True).stdout
    elements = {
        entry[kind]["name"]: len(entry[kind].get("elem", []))
        for entry in table["nftables"]
        for kind in ("set", "map")
        if kind in entry
    }
    return Traces(
        namespaces=list_namespaces(router),
        mounts=sum(
            1 for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines() if _is_ours(line, settings)
        ),
        cgroups=sum(1 for path in Path("/sys/fs/cgroup").rglob(f"*{settings.instance_id}*/*") if path.is_dir()),
        processes=_count_processes(settings.instance_id),
        elements=elements,
        links=links,
        tracked_flows=sum(1 for line in tracked.splitlines() if "src=10.213." in line),
    )


def _is_ours(mount: str, settings: Settings) -> bool:
    """Other tests may mount and unmount on this machine meanwhile."""
    return settings.instance_id in mount or str(settings.state_dir) in mount


def _count_processes(instance_id: str) -> int:
    """Processes whose cgroup is one of this instance's devboxes."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            count += instance_id in path.read_text("utf-8")
        except OSError:
            continue  # it ended while we looked
    return count


def test_a_hundred_devboxes_leave_nothing(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}])
    # What only the first devbox makes stays: the chains of the policy, say.
    first = stage.devbox(policy)
    assert run(first, f"curl -s --max-time 20 http://{IN_NETWORK_A}/").exit_code == 0
    busy = _observe(stage)
    first.shutdown()
    before = _settle(stage, lambda traces: len(traces.namespaces) == 1 and not traces.processes)
    for trace in fields(Traces):
        # A count that does not notice a devbox would notice no leftover either.
        assert getattr(busy, trace.name) != getattr(before, trace.name), trace.name

    def live(_: int) -> Devbox:
        with entered(stage.internet.namespaces.host):
            devbox = stage.client.devbox.create(launch_parameters={"network_policy_id": policy.id})
            done = run(
                devbox,
                f"curl -sk --max-time 20 https://{ALLOWED.name}/ && curl -s --max-time 20 http://{IN_NETWORK_A}/",
            )
            assert done.exit_code == 0, done
            devbox.shutdown()
            return devbox

    with ThreadPoolExecutor(AT_ONCE) as pool:
        devboxes = list(pool.map(live, range(DEVBOXES)))
    assert len({devbox.id for devbox in devboxes}) == DEVBOXES
    assert _settle(stage, lambda traces: traces == before) == before


def _settle(stage: Stage, is_settled: Callable[[Traces], bool]) -> Traces:
    """What is there once ``is_settled``; shutdown is answered before the host has taken everything down."""
    deadline_s = time.monotonic() + SETTLED_S_MAX
    while not is_settled(traces := _observe(stage)) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return traces
