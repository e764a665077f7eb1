"""Updates while everything runs: in force when answered, exact, and never open in between."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.internet import Closing, Journal
from support.stage import Stage, attempt, finish, run, start
from support.world import (
    ALLOWED,
    ALSO,
    DENIED,
    IN_NETWORK_A,
    IN_NETWORK_B,
    IN_NO_NETWORK,
    NETWORK_A,
    NETWORK_B,
)

FLOWS_EACH = 250
PASSED_S_MAX = 60.0

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def test_an_update_is_in_force_when_its_response_arrives(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    devbox = stage.devbox(policy)
    for _ in range(5):
        policy.update(allowed_hostnames=[ALSO.name])
        closed_s = stage.internet.now_s()
        gone, new = attempt(
            devbox,
            {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
            {"kind": "lookup", "name": ALSO.name},
        )
        assert not gone.is_answered
        assert new.is_answered
        assert not stage.internet.journal(since_s=closed_s, host=ALLOWED.name).connections
        policy.update(allowed_hostnames=[ALLOWED.name])
        lookup, back = attempt(
            devbox,
            {"kind": "lookup", "name": ALLOWED.name},
            {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
        )
        assert lookup.is_answered
        assert back.is_answered


def _await_journal(stage: Stage, since_s: float, condition: Callable[[Journal], bool]) -> Journal:
    """What has reached the far side since then, once that fulfils ``condition``."""
    deadline_s = time.monotonic() + PASSED_S_MAX
    while not condition(journal := stage.internet.journal(since_s=since_s)):
        assert time.monotonic() < deadline_s, journal
        time.sleep(0.05)
    return journal


def test_two_hundred_quick_updates_never_allow_what_both_revisions_deny(stage: Stage) -> None:
    one: dict[str, Any] = {"allowed_hostnames": [ALLOWED.name], "allowed_cidrs": [{"cidr": NETWORK_A}]}
    two: dict[str, Any] = {"allowed_hostnames": [ALSO.name], "allowed_cidrs": [{"cidr": NETWORK_B}]}
    policy = stage.policy(**one)
    devbox = stage.devbox(policy)
    since_s = stage.internet.now_s()
    traffic = start(
        devbox,
        "traffic",
        [
            {"kind": "tls", "name": ALLOWED.name},
            {"kind": "tls", "name": ALSO.name},
            {"kind": "raw", "address": IN_NETWORK_A, "port": 7},
            {"kind": "raw", "address": IN_NETWORK_B, "port": 7},
            {"kind": "udp", "address": IN_NETWORK_A, "port": 7},
            # Both revisions deny what follows.
            {"kind": "tls", "name": DENIED.name},
            {"kind": "tls", "name": DENIED.name, "address": DENIED.address4},
            {"kind": "tls", "name": DENIED.name, "address": ALLOWED.address4},
            {"kind": "raw", "address": DENIED.address4, "port": 7},
            {"kind": "raw", "address": IN_NO_NETWORK, "port": 7},
            {"kind": "udp", "address": IN_NO_NETWORK, "port": 7},
        ],
    )
    for number in range(200):
        policy.update(**(two if number % 2 == 0 else one))
    # A revision that lasts 10 ms is too short for a lookup and a handshake: that each lets its own pass is seen here.
    for revision, connected, heard in (
        (two, {ALSO.address4, IN_NETWORK_B}, set[str]()),
        (one, {ALLOWED.address4, IN_NETWORK_A}, {IN_NETWORK_A}),
    ):
        policy.update(**revision)
        _await_journal(
            stage,
            stage.internet.now_s(),
            lambda journal, connected=connected, heard=heard: (  # type: ignore[misc] # as the loop has them now
                connected <= {c.address for c in journal.connections if c.bytes_out}
                and heard <= {d.address for d in journal.datagrams}
            ),
        )
    run(devbox, "touch /tmp/stop-traffic")
    result = finish(traffic)
    assert all(count > 10 for count in result["tries"]), result
    assert all(result["answers"][:5]), f"each revision let its own pass: {result}"
    assert result["answers"][5:] == [0] * 6
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(DENIED.address6)
    assert not journal.reached(IN_NO_NETWORK)
    assert DENIED.name not in {query.name for query in journal.queries}
    assert DENIED.name not in {connection.server_name for connection in journal.connections}


def test_tightening_resets_exactly_the_flows_that_lost_their_rule(stage: Stage) -> None:
    keep: dict[str, Any] = {"allowed_hostnames": [ALSO.name], "allowed_cidrs": [{"cidr": NETWORK_B}]}
    both: dict[str, Any] = {
        "allowed_hostnames": [ALLOWED.name, ALSO.name],
        "allowed_cidrs": [{"cidr": NETWORK_A}, {"cidr": NETWORK_B}],
    }
    policy = stage.policy(**both)
    devbox = stage.devbox(policy)
    attempt(devbox, *({"kind": "lookup", "name": name} for name in (ALLOWED.name, ALSO.name)))
    since_s = stage.internet.now_s()
    revoked = (ALLOWED.address4, IN_NETWORK_A)
    addresses = (*revoked, ALSO.address4, IN_NETWORK_B)
    specs: list[dict[str, Any]] = [
        {"address": address, "port": 7, "count": FLOWS_EACH, "talks": True, "ends": address in revoked}
        for address in addresses
    ]
    # Servers that push to a silent devbox: these must end, or go on, without a packet of the box's own.
    specs += [spec | {"port": 19, "count": 2, "talks": False} for spec in specs]
    flows = start(devbox, "flows", specs)
    opened = run(devbox, "for i in $(seq 600); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0, flows.get_state()
    policy.update(**keep)
    answered_s = stage.internet.now_s()
    counts = {address: FLOWS_EACH + 2 if address in revoked else 0 for address in addresses}

    def count_ended(journal: Journal) -> dict[str, int]:
        closings = Counter(c.address for c in journal.connections if c.closing is not Closing.OPEN)
        return {address: closings[address] for address in addresses}

    journal = _await_journal(stage, since_s, lambda journal: count_ended(journal) == counts)
    run(devbox, "touch /tmp/flows-check")
    results = finish(flows)
    for number, (spec, result) in enumerate(zip(specs, results, strict=True)):
        assert result["opened"] == spec["count"]
        assert result["alive"] == (0 if spec["ends"] else spec["count"]), (number, spec, result["errors"][:3])
        # The program in the box hears of it without sending anything.
        assert result["ended_unasked"] == (spec["count"] if spec["ends"] else 0), (number, spec, result["errors"][:3])
    for address in addresses:
        ended = [c for c in journal.connections if c.address == address and c.closing is not Closing.OPEN]
        assert [c for c in ended if c.last_in_s > answered_s] == [], "bytes of a revoked flow left after the response"


def test_narrowing_allow_all_resets_every_flow(stage: Stage) -> None:
    policy = stage.policy(allow_all=True)
    devbox = stage.devbox(policy)
    specs = [
        {"address": address, "port": 7, "count": 5, "talks": True, "ends": True}
        for address in (IN_NETWORK_A, IN_NO_NETWORK, ALLOWED.address4, DENIED.address6)
    ]
    flows = start(devbox, "flows", specs)
    opened = run(devbox, "for i in $(seq 200); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0
    # The new revision would allow one of them: it goes all the same, because nothing ever inspected it.
    policy.update(allow_all=False, allowed_cidrs=[{"cidr": NETWORK_A}])
    run(devbox, "touch /tmp/flows-check")
    results = finish(flows)
    assert [result["alive"] for result in results] == [0, 0, 0, 0]
    assert [result["ended_unasked"] for result in results] == [5, 5, 5, 5]
    (fresh,) = attempt(devbox, {"kind": "raw", "address": IN_NETWORK_A, "port": 7})
    assert fresh.is_answered


def test_a_kept_rule_keeps_its_flows_through_many_updates(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALSO.name], allowed_cidrs=[{"cidr": NETWORK_B}])
    devbox = stage.devbox(policy)
    attempt(devbox, {"kind": "lookup", "name": ALSO.name})
    specs = [{"address": address, "port": 7, "count": 20, "talks": True} for address in (ALSO.address4, IN_NETWORK_B)]
    flows = start(devbox, "flows", specs)
    opened = run(devbox, "for i in $(seq 200); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0
    for number in range(30):
        extra = [ALLOWED.name] if number % 2 else []
        networks = [NETWORK_A, NETWORK_B] if number % 3 else [NETWORK_B]
        policy.update(allowed_hostnames=[*extra, ALSO.name], allowed_cidrs=[{"cidr": network} for network in networks])
    run(devbox, "touch /tmp/flows-check")
    assert [result["alive"] for result in finish(flows)] == [20, 20]
