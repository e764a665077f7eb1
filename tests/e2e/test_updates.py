"""Updates while everything runs: in force when answered, exact, and never open in between."""

import time
from typing import Any

import pytest

from support.internet import Closing
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

NOTICED_S = 0.1
"""After the response of a tightening update the program in the box must know within this time (design §3)."""
SLACK_S = 0.4
"""For the reader of these times, not for the promise: this process and the box share two cores with everything else."""
FLOWS_EACH = 250
SETTLED_S = 1.0
"""How long traffic runs under each of the last two revisions, so that what each allows is seen to pass."""

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
    for revision in (two, one):
        policy.update(**revision)
        time.sleep(SETTLED_S)
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
    addresses = (ALLOWED.address4, IN_NETWORK_A, ALSO.address4, IN_NETWORK_B)
    specs = [{"address": address, "port": 7, "count": FLOWS_EACH, "talks": True} for address in addresses]
    # Servers that push to a silent devbox: these must end, or go on, without a packet of the box's own.
    specs += [{"address": address, "port": 19, "count": 2, "talks": False} for address in addresses]
    flows = start(devbox, "flows", specs)
    opened = run(devbox, "for i in $(seq 600); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0, flows.get_state()
    policy.update(**keep)
    answered_s = stage.internet.now_s()
    time.sleep(NOTICED_S + SLACK_S)
    journal = stage.internet.journal(since_s=since_s)
    run(devbox, "touch /tmp/flows-check")
    results = finish(flows)
    for number, (spec, result) in enumerate(zip(specs, results, strict=True)):
        assert result["opened"] == spec["count"]
        is_revoked = spec["address"] in (ALLOWED.address4, IN_NETWORK_A)
        assert result["alive"] == (0 if is_revoked else spec["count"]), (number, spec, result["errors"][:3])
        print(spec["address"], spec["talks"], result["errors"], sorted(e - answered_s for e in result["ended_s"])[-3:])
        late = [ended_s - answered_s for ended_s in result["ended_s"] if ended_s > answered_s + NOTICED_S + SLACK_S]
        assert late == [], (number, spec)
    for address in addresses:
        ended = [c for c in journal.connections if c.address == address and c.closing is not Closing.OPEN]
        is_revoked = address in (ALLOWED.address4, IN_NETWORK_A)
        assert len(ended) == (FLOWS_EACH + 2 if is_revoked else 0), address
        assert [c for c in ended if c.last_in_s > answered_s] == [], "bytes of a revoked flow left after the response"


def test_narrowing_allow_all_resets_every_flow(stage: Stage) -> None:
    policy = stage.policy(allow_all=True)
    devbox = stage.devbox(policy)
    specs = [
        {"address": address, "port": 7, "count": 5, "talks": True}
        for address in (IN_NETWORK_A, IN_NO_NETWORK, ALLOWED.address4, DENIED.address6)
    ]
    flows = start(devbox, "flows", specs)
    opened = run(devbox, "for i in $(seq 200); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0
    # The new revision would allow one of them: it goes all the same, because nothing ever inspected it.
    policy.update(allow_all=False, allowed_cidrs=[{"cidr": NETWORK_A}])
    time.sleep(NOTICED_S + SLACK_S)
    run(devbox, "touch /tmp/flows-check")
    assert [result["alive"] for result in finish(flows)] == [0, 0, 0, 0]
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
