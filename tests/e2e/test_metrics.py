"""The numbers of a real gate, by its agent and the api, as Prometheus reads them."""

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.stage import Stage, attempt
from support.world import ALSO, DENIED

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(180)]

Sample = tuple[str, tuple[tuple[str, str], ...]]


def read(stage: Stage) -> dict[Sample, float]:
    answer = httpx.get(f"{stage.daemon.url}/metrics", timeout=20)
    assert answer.status_code == 200, answer.text
    return {
        (
            sample.name,
            tuple(sorted((key, value) for key, value in sample.labels.items() if key != "host")),
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_a_devbox_tried_shows_in_the_numbers_of_its_host(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALSO.name])
    devbox = stage.devbox(policy)
    tried = attempt(
        devbox,
        {"kind": "lookup", "name": ALSO.name},
        {"kind": "lookup", "name": DENIED.name},
    )
    assert [one.is_answered for one in tried] == [True, False]
    denied = ("outgate_decisions_total", (("point", "dns"), ("reason", "name_not_allowed"), ("verdict", "deny")))
    deadline_s = time.monotonic() + 60
    while (seen := read(stage)).get(denied, 0) < 1:
        assert time.monotonic() < deadline_s, sorted(seen)
        time.sleep(0.2)
    assert seen["outgate_dns_seconds_count", (("answer", "denied"),)] >= 1
    assert seen["outgate_dns_seconds_count", (("answer", "forwarded"),)] >= 1
    assert seen["outgate_apply_seconds_count", (("step", "kernel"),)] >= 1
    assert seen["outgate_apply_seconds_count", (("step", "gate"),)] >= 1
    assert seen["outgate_host_enforcing", ()] == 1
    assert seen["outgate_pins", ()] >= 1
    assert seen["process_open_fds", ()] > 0
