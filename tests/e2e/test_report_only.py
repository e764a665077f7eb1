"""Policies that only report: what they let pass, what stays closed, and what is on record of it."""

import secrets
import time
from typing import Any

import pytest
from runloop_api_client.sdk.devbox import Devbox

from outgate import clock
from outgate.cli.demo.namespaces import HOST_ADDRESS4
from support.stage import EXEC_S_MAX, Stage, attempt, finish, run, start
from support.world import ALLOWED, ALSO, DENIED, IN_NETWORK_A, IN_NO_NETWORK, METADATA, NETWORK_A, PRIVATE

RECORDED_S_MAX = 60.0
"""Records come half a second after what they tell of; this is for a machine that does much else."""

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

Record = dict[str, Any]


def _tls(address: str, name: str | None, port: int = 443) -> Record:
    return {"kind": "tls", "address": address, "port": port, "name": name}


def _http(address: str, name: str | None, port: int = 80) -> Record:
    return {"kind": "http", "address": address, "port": port, "name": name}


def _raw(address: str, port: int) -> Record:
    return {"kind": "raw", "address": address, "port": port}


def _lookup(name: str) -> Record:
    return {"kind": "lookup", "name": name}


def _call(stage: Stage, method: str, path: str, body: object = None) -> Any:
    call = stage.client.api.get if method == "GET" else stage.client.api.post
    return call(path, cast_to=object) if body is None else stage.client.api.post(path, cast_to=object, body=body)


def _records(stage: Stage, devbox: Devbox) -> list[Record]:
    found: list[Record] = _call(stage, "GET", f"/v1/network-flows?devbox_id={devbox.id}&limit=1000")["network_flows"]
    return found


def _await_records(stage: Stage, devbox: Devbox, *wanted: Record) -> list[Record]:
    """The devbox's records once each of ``wanted`` is part of one of them."""
    deadline_s = clock.monotonic_s() + RECORDED_S_MAX
    while True:
        found = _records(stage, devbox)
        missing = [one for one in wanted if not any(one.items() <= record.items() for record in found)]
        if not missing:
            return found
        assert clock.monotonic_s() < deadline_s, (missing, found)
        time.sleep(0.1)


def _report_only(stage: Stage, **egress: Any) -> str:
    """A policy that only reports; its id."""
    body = {"name": f"test-{secrets.token_hex(4)}", "enforcement": "report_only", **egress}
    view = _call(stage, "POST", "/v1/network-policies", body)
    policy = stage.client.network_policy.from_id(view["id"])
    stage._policies.append(policy)
    return str(view["id"])


def _devbox(stage: Stage, policy_id: str) -> Devbox:
    return stage.devbox(stage.client.network_policy.from_id(policy_id))


def test_what_would_be_denied_passes_and_is_told_by_its_name(stage: Stage) -> None:
    devbox = _devbox(stage, _report_only(stage, allowed_hostnames=[ALLOWED.name]))
    since_s = stage.internet.now_s()
    tried = attempt(
        devbox,
        _lookup(ALLOWED.name),
        _lookup(DENIED.name),
        _tls(ALLOWED.address4, ALLOWED.name),
        _tls(DENIED.address4, DENIED.name),
        _tls(DENIED.address6, DENIED.name, 8443),
        _http(DENIED.address4, DENIED.name),
        _http(DENIED.address4, None),
        _tls(ALLOWED.address4, DENIED.name),
        _raw(DENIED.address4, 22),
        _raw(DENIED.address4, 443),
        _raw(IN_NO_NETWORK, 7),
        {"kind": "udp", "address": DENIED.address4, "port": 7},
        {"kind": "udp", "address": DENIED.address6, "port": 7},
        {"kind": "icmp", "address": DENIED.address4},
    )
    # What answers on 443 of the far side speaks TLS, so bare text gets no answer there; that it arrived is what counts.
    silent = [one for one in (*tried[:9], *tried[10:]) if not one.is_answered]
    assert silent == []
    journal = stage.internet.journal(since_s=since_s)
    assert {DENIED.name, ALLOWED.name} <= {query.name for query in journal.queries}
    # The address that the box chose is the one that was reached, whatever was named.
    forged = [c for c in journal.connections if c.address == ALLOWED.address4 and c.server_name == DENIED.name]
    assert len(forged) == 1
    assert journal.reached(DENIED.address4, 443)
    reported = {"verdict": "report_only"}
    found = _await_records(
        stage,
        devbox,
        {"verdict": "allow", "hostname": ALLOWED.name, "enforcement_point": "relay", "reason": "hostname"},
        {**reported, "hostname": DENIED.name, "enforcement_point": "dns", "reason": "name_not_allowed"},
        {**reported, "hostname": DENIED.name, "enforcement_point": "relay", "protocol": "tls", "port": 443},
        {**reported, "hostname": DENIED.name, "address": DENIED.address6, "protocol": "tls", "port": 8443},
        {**reported, "hostname": DENIED.name, "enforcement_point": "relay", "protocol": "http", "port": 80},
        {**reported, "hostname": DENIED.name, "address": ALLOWED.address4, "reason": "name_not_allowed"},
        {**reported, "hostname": DENIED.name, "enforcement_point": "relay", "protocol": "tcp", "port": 22},
        {**reported, "address": IN_NO_NETWORK, "enforcement_point": "kernel", "port": 7, "protocol": "tcp"},
        {**reported, "address": DENIED.address4, "enforcement_point": "kernel", "port": 7, "protocol": "udp"},
        {**reported, "address": DENIED.address6, "enforcement_point": "kernel", "port": 7, "protocol": "udp"},
        {**reported, "address": DENIED.address4, "enforcement_point": "kernel", "protocol": "icmp"},
    )
    assert [record for record in found if record["verdict"] == "deny"] == []
    sentences = {record["sentence"] for record in found if record["verdict"] == "report_only"}
    assert all(sentence.startswith("Let through, because the policy only reports.") for sentence in sentences)


def test_the_floor_holds(stage: Stage) -> None:
    policy_id = _report_only(stage, allowed_hostnames=[ALLOWED.name])
    devbox, other = _devbox(stage, policy_id), _devbox(stage, policy_id)
    asked = "import socket; s = socket.socket(2, 2); s.connect(('45.45.45.45', 9)); print(s.getsockname()[0])"
    address = run(other, f'python3 -c "{asked}"').stdout.strip()
    server = other.cmd.exec_async("python3 -m http.server 8000")
    since_s = stage.internet.now_s()
    closed = (METADATA, PRIVATE, HOST_ADDRESS4, address)
    tried = attempt(
        devbox,
        *(_raw(target, port) for target in closed for port in (22, 80, 8000)),
        *(_tls(target, DENIED.name) for target in closed),
        {"kind": "udp", "address": PRIVATE, "port": 7},
        {"kind": "icmp", "address": METADATA},
        {"kind": "icmp", "address": address},
        _raw(IN_NO_NETWORK, 7),
    )
    server.kill()
    assert [one for one in tried[:-1] if one.is_answered] == []
    assert tried[-1].is_answered
    journal = stage.internet.journal(since_s=since_s)
    assert {connection.address for connection in journal.connections} == {IN_NO_NETWORK}
    assert not journal.reached(METADATA)
    assert not journal.reached(PRIVATE)
    found = _await_records(
        stage,
        devbox,
        {"verdict": "deny", "address": METADATA, "reason": "floor_metadata"},
        {"verdict": "deny", "address": PRIVATE, "reason": "floor_private"},
        {"verdict": "deny", "address": HOST_ADDRESS4, "reason": "floor_host"},
        {"verdict": "deny", "address": address, "reason": "floor_devbox"},
        {"verdict": "report_only", "address": IN_NO_NETWORK, "port": 7},
    )
    assert {record["address"] for record in found if record["verdict"] == "report_only"} == {IN_NO_NETWORK}


_HELD_TLS = """
import pathlib, socket, ssl, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
flows = []
for address, name in {targets}:
    plain = socket.create_connection((address, 443), 10)
    flows.append((context.wrap_socket(plain, server_hostname=name), name))
pathlib.Path("/tmp/tls-open").touch()
while not pathlib.Path("/tmp/tls-check").exists():
    time.sleep(0.05)
for flow, name in flows:
    try:
        flow.settimeout(10)
        flow.sendall(f"GET / HTTP/1.1\\r\\nHost: {{name}}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        print("alive" if flow.recv(100) else "ended")
    except OSError:
        print("reset")
"""


def test_a_switch_to_enforcing_cuts_what_is_not_allowed_and_nothing_else(stage: Stage) -> None:
    policy_id = _report_only(stage, allowed_hostnames=[ALLOWED.name])
    devbox = _devbox(stage, policy_id)
    attempt(devbox, _lookup(ALLOWED.name), _lookup(DENIED.name), _lookup(ALSO.name))
    targets = [
        (ALLOWED.address4, ALLOWED.name),
        (ALSO.address4, ALSO.name),
        (DENIED.address4, DENIED.name),
        (ALLOWED.address4, DENIED.name),
        (DENIED.address4, ALLOWED.name),
    ]
    program = _HELD_TLS.format(targets=targets)
    tls = devbox.cmd.exec_async(f"cat > /tmp/held.py <<'END'\n{program}\nEND\npython3 /tmp/held.py")
    places = (ALLOWED.address4, IN_NETWORK_A, DENIED.address4, IN_NO_NETWORK)
    flows = start(devbox, "flows", [{"address": place, "port": 7, "count": 5, "talks": True} for place in places])
    opened = run(
        devbox, "for i in $(seq 600); do [ -e /tmp/flows-open -a -e /tmp/tls-open ] && exit 0; sleep 0.1; done; exit 1"
    )
    assert opened.exit_code == 0
    # What the same update allows lives on: one of the hosts, and a network of flows that the kernel carries.
    rules = {"allowed_hostnames": [ALLOWED.name, ALSO.name], "allowed_cidrs": [{"cidr": NETWORK_A}]}
    _call(stage, "POST", f"/v1/network-policies/{policy_id}", {"enforcement": "enforce", **rules})
    answered_s = stage.internet.now_s()
    run(devbox, "touch /tmp/flows-check /tmp/tls-check")
    assert [result["alive"] for result in finish(flows)] == [5, 5, 0, 0]
    # A forged name never outlives the switch: the server at the other end is not the named host's.
    assert tls.result(timeout=EXEC_S_MAX).stdout().split() == ["alive", "alive", "reset", "reset", "reset"]
    late = [
        c for c in stage.internet.journal().connections if c.address == DENIED.address4 and c.last_in_s > answered_s
    ]
    assert late == [], "bytes of a flow that is not allowed left after the response"
    (now,) = attempt(devbox, _lookup(DENIED.name))
    assert not now.is_answered


def test_a_switch_to_reporting_opens_at_once_and_keeps_what_is_open(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}])
    devbox = stage.devbox(policy)
    attempt(devbox, _lookup(ALLOWED.name))
    places = (ALLOWED.address4, IN_NETWORK_A)
    flows = start(devbox, "flows", [{"address": place, "port": 7, "count": 5, "talks": True} for place in places])
    opened = run(devbox, "for i in $(seq 600); do [ -e /tmp/flows-open ] && exit 0; sleep 0.1; done; exit 1")
    assert opened.exit_code == 0
    # The network's rule goes with the same update: its flows go on because nothing is held back any more.
    _call(stage, "POST", f"/v1/network-policies/{policy.id}", {"enforcement": "report_only", "allowed_cidrs": []})
    tried = attempt(devbox, _lookup(DENIED.name), _tls(DENIED.address4, DENIED.name), _raw(IN_NO_NETWORK, 7))
    assert [one for one in tried if not one.is_answered] == []
    run(devbox, "touch /tmp/flows-check")
    assert [result["alive"] for result in finish(flows)] == [5, 5]


def test_every_request_of_a_connection_is_told(stage: Stage) -> None:
    devbox = _devbox(stage, _report_only(stage, allowed_hostnames=[ALLOWED.name]))
    attempt(devbox, _lookup(ALLOWED.name))
    heads = "".join(
        f"GET /{n} HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n" for n, name in enumerate((ALLOWED.name, DENIED.name))
    )
    program = (
        f"import socket; s = socket.create_connection(('{ALLOWED.address4}', 80), 10); s.sendall(b'{heads}GET\\n\\n'); "
        "s.settimeout(10); print(len(s.recv(100)))"
    )
    assert run(devbox, f'python3 -c "{program}"').stdout.strip() != "0"
    _await_records(
        stage,
        devbox,
        {"verdict": "allow", "hostname": ALLOWED.name, "protocol": "http", "enforcement_point": "relay"},
        {"verdict": "report_only", "hostname": DENIED.name, "protocol": "http", "reason": "name_not_allowed"},
        {"verdict": "report_only", "reason": "bad_handshake", "enforcement_point": "relay"},
    )
