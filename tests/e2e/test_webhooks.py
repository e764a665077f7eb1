"""What a devbox is denied arrives, signed, at a receiver on the internet."""

import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from outgate import clock
from outgate.cli.demo.control import Service, ServiceKind
from support.stage import Stage, attempt, open_stage
from support.world import DENIED, populate

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

RECEIVER = "45.45.45.77"
WAIT_S_MAX = 90.0


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    """One whose operator lets webhooks be delivered to the receiver without TLS."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make network namespaces: run them as root")
    with open_stage(environment={"OUTGATE_WEBHOOK_HTTP_HOSTS": RECEIVER}) as stage:
        populate(stage.internet)
        stage.internet.add_host("hooks.internet", addresses=(RECEIVER,), services=(Service(ServiceKind.TAPE, 80),))
        yield stage


def await_deliveries(stage: Stage, count: int) -> list[tuple[dict[str, str], str]]:
    """Headers and body of each delivery that came to the receiver, once there are so many."""
    deadline_s = clock.monotonic_s() + WAIT_S_MAX
    while True:
        taped = [connection.kept for connection in stage.internet.journal(host="hooks.internet").connections]
        whole = [found for kept in taped if (found := parse(kept)) is not None]
        if len(whole) >= count:
            return whole
        assert clock.monotonic_s() < deadline_s, taped
        time.sleep(0.2)


def parse(kept: bytes) -> tuple[dict[str, str], str] | None:
    """Headers and body of a request; None while it has not come as a whole."""
    head, _, body = kept.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return (headers, body.decode()) if len(body) == int(headers.get("content-length", -1)) else None


def test_a_denial_arrives_signed_and_says_what_to_change(stage: Stage) -> None:
    headers = {"authorization": f"Bearer {stage.daemon.api_key}"}
    policy = stage.policy()
    with httpx.Client(base_url=stage.daemon.url, headers=headers, timeout=30, trust_env=False) as api:
        body = {"url": f"http://{RECEIVER}/hook", "events": ["flow.denied"], "policy_ids": [policy.id]}
        answer = api.post("/v1/webhooks", json=body)
        assert answer.status_code == 200, answer.text
        webhook: dict[str, Any] = answer.json()
        devbox = stage.devbox(policy)
        lookup = {"kind": "lookup", "name": DENIED.name}
        assert not attempt(devbox, lookup)[0].is_answered
        ((sent, said), *_) = await_deliveries(stage, 1)
        event = Webhook(webhook["secret"]).verify(said, sent)
        assert event["type"] == "flow.denied"
        (flow,) = [one for one in event["data"]["network_flows"] if one["hostname"] == DENIED.name]
        assert (flow["devbox_id"], flow["policy_id"], flow["verdict"]) == (devbox.id, policy.id, "deny")
        assert "allowed_hostnames" in flow["sentence"]
        assert sent["host"] == RECEIVER
        assert api.post(f"/v1/webhooks/{webhook['id']}/delete").status_code == 200
