"""A policy on a running devbox: what it lets out, and that nothing else reaches the far side."""

import socket
import textwrap
import time
from typing import Any

import pytest

from outgate.cli.demo.namespaces import HOST_ADDRESS4
from support.stage import Stage, attempt, run
from support.world import (
    ALLOWED,
    ALSO,
    APEX,
    BELOW,
    DENIED,
    IN_NETWORK_A,
    IN_NO_NETWORK,
    METADATA,
    NETWORK_A,
    OTHER_RESOLVER,
    PRIVATE,
    Host,
)

DENIED_AT_ONCE_S = 1.5

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


def _tls(address: str, name: str, port: int = 443) -> dict[str, object]:
    return {"kind": "tls", "address": address, "port": port, "name": name}


def _http(address: str, name: str, port: int = 80) -> dict[str, object]:
    return {"kind": "http", "address": address, "port": port, "name": name}


def _raw(address: str, port: int) -> dict[str, object]:
    return {"kind": "raw", "address": address, "port": port}


def _lookup(name: str) -> dict[str, object]:
    return {"kind": "lookup", "name": name}


def test_the_first_process_is_already_under_the_policy(stage: Stage) -> None:
    since_s = stage.internet.now_s()
    commands = [
        f"curl -sk --max-time 5 https://{ALLOWED.name}/ >/tmp/allowed",
        f"! curl -sk --max-time 5 https://{DENIED.name}/ && ! curl -sk --max-time 5 https://{DENIED.address4}/",
    ]
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]), launch_commands=commands)
    assert run(devbox, "cat /tmp/allowed").stdout == f"hello from {ALLOWED.name}\n"
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(DENIED.address6)
    assert DENIED.name not in {query.name for query in journal.queries}


def test_allowed_names_are_reached_over_both_families_and_any_port(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    found, *tried = attempt(
        devbox,
        _lookup(ALLOWED.name),
        _tls(ALLOWED.address4, ALLOWED.name),
        _tls(ALLOWED.address6, ALLOWED.name),
        _http(ALLOWED.address4, ALLOWED.name),
        _http(ALLOWED.address6, ALLOWED.name),
        _tls(ALLOWED.address4, ALLOWED.name, 8443),
        _http(ALLOWED.address4, ALLOWED.name, 8080),
        _raw(ALLOWED.address4, 22),
        _raw(ALLOWED.address6, 7),
    )
    assert set(found.detail.split()) == {ALLOWED.address4, ALLOWED.address6}
    assert [one.outcome for one in tried] == ["answer"] * len(tried), tried


def test_everything_else_is_refused_at_once_and_reaches_nobody(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    attempt(devbox, _lookup(ALLOWED.name))
    since_s = stage.internet.now_s()
    tried = attempt(
        devbox,
        _lookup(DENIED.name),
        *(_tls(address, DENIED.name) for address in (DENIED.address4, DENIED.address6)),
        *(_raw(address, 7) for address in (DENIED.address4, DENIED.address6, IN_NETWORK_A, PRIVATE, METADATA)),
        _raw("45.45.99.99", 65000),
        {"kind": "udp", "address": DENIED.address4, "port": 7},
        {"kind": "udp", "address": DENIED.address6, "port": 7},
        {"kind": "udp", "address": ALLOWED.address4, "port": 443},
        {"kind": "udp", "address": ALLOWED.address6, "port": 443},
        {"kind": "icmp", "address": ALLOWED.address4},
        {"kind": "icmp", "address": ALLOWED.address6},
        _raw(ALLOWED.address4, 853),
    )
    assert [one.outcome for one in tried if one.is_answered] == []
    slow = [one for one in tried if one.outcome == "timeout" or one.took_s > DENIED_AT_ONCE_S]
    assert slow == []
    journal = stage.internet.journal(since_s=since_s)
    assert journal.connections == []
    assert journal.datagrams == []
    assert journal.packets == []
    assert journal.queries == []


def test_a_forged_name_reaches_only_the_host_it_names(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name, ALSO.name]))
    attempt(devbox, _lookup(ALLOWED.name), _lookup(ALSO.name))
    since_s = stage.internet.now_s()
    denied_name, other_name, denied_host = attempt(
        devbox,
        _tls(ALLOWED.address4, DENIED.name),
        _tls(ALLOWED.address4, ALSO.name),
        _http(ALLOWED.address4, DENIED.name),
    )
    assert not denied_name.is_answered
    assert f"hello from {ALSO.name}" in other_name.detail
    assert "403" in denied_host.detail
    assert DENIED.name in denied_host.detail
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    asked = [c for c in journal.connections if c.requests]
    assert [(c.host, c.server_name) for c in asked] == [(ALSO.name, ALSO.name)]
    assert [c for c in journal.connections if c.bytes_in and c.address == ALLOWED.address4] == []


def test_every_request_of_a_connection_is_judged(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    script = textwrap.dedent(f"""
        import http.client, socket
        flow = socket.create_connection(("{ALLOWED.name}", 80), 5)
        for host in ("{ALLOWED.name}", "{DENIED.name}"):
            flow.sendall(b"GET / HTTP/1.1\\r\\nHost: " + host.encode() + b"\\r\\n\\r\\n")
            response = http.client.HTTPResponse(flow)
            response.begin()
            response.read()  # head and body may come apart
            print(response.status)
        """)
    since_s = stage.internet.now_s()
    ran = run(devbox, f"python3 - <<'END'\n{script}\nEND")
    assert ran.stdout.split() == ["200", "403"]
    requests = [r for c in stage.internet.journal(since_s=since_s).connections for r in c.requests]
    assert requests == [f"GET http://{ALLOWED.name}/"]


def test_a_wildcard_covers_every_depth_below_and_never_the_apex(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=["*.wild.example.com"]))
    since_s = stage.internet.now_s()
    below, apex = attempt(devbox, _lookup(BELOW.name), _lookup(APEX.name))
    assert BELOW.address4 in below.detail
    assert not apex.is_answered
    assert APEX.name not in {query.name for query in stage.internet.journal(since_s=since_s).queries}
    (direct,) = attempt(devbox, _tls(BELOW.address4, BELOW.name))
    assert direct.is_answered


def test_a_network_rule_covers_its_ports_and_protocols_only(stage: Stage) -> None:
    rule = {"cidr": NETWORK_A, "ports": [{"port": 7, "protocol": "TCP"}, {"port": 443}]}
    devbox = stage.devbox(stage.policy(allowed_cidrs=[rule]))
    since_s = stage.internet.now_s()
    echo, tls, udp_echo, web, outside = attempt(
        devbox,
        _raw(IN_NETWORK_A, 7),
        _tls(IN_NETWORK_A, DENIED.name),
        {"kind": "udp", "address": IN_NETWORK_A, "port": 7},
        _http(IN_NETWORK_A, DENIED.name),
        _raw(IN_NO_NETWORK, 7),
    )
    assert echo.is_answered
    assert tls.is_answered, "a network rule reads no names"
    assert not any(one.is_answered for one in (udp_echo, web, outside))
    journal = stage.internet.journal(since_s=since_s)
    assert {(c.address, c.port) for c in journal.connections} == {(IN_NETWORK_A, 7), (IN_NETWORK_A, 443)}
    assert journal.datagrams == []
    assert not journal.reached(IN_NO_NETWORK)


def test_dns_to_another_server_is_answered_by_the_gate(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    script = textwrap.dedent(f"""
        import socket, struct
        for name in ("{ALLOWED.name}", "{DENIED.name}"):
            labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
            query = struct.pack("!6H", 4711, 256, 1, 0, 0, 0) + labels + bytes(1) + struct.pack("!2H", 1, 1)
            exchange = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            exchange.settimeout(5)
            exchange.connect(("{OTHER_RESOLVER}", 53))
            exchange.send(query)
            answer = exchange.recv(2048)
            print(answer[3] & 15, struct.unpack_from("!H", answer, 6)[0])
        """)
    since_s = stage.internet.now_s()
    ran = run(devbox, f"python3 - <<'END'\n{script}\nEND")
    allowed, denied = ran.stdout.splitlines()
    assert allowed.split()[:2] == ["0", "1"], ran
    assert denied.split()[:2] == ["3", "0"], ran
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(OTHER_RESOLVER)
    assert DENIED.name not in {query.name for query in journal.queries}


def test_allow_all_opens_private_networks_and_never_the_floor(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy(allow_all=True))
    since_s = stage.internet.now_s()
    anywhere, private, udp, icmp, metadata = attempt(
        devbox,
        _raw(IN_NO_NETWORK, 7),
        _raw(PRIVATE, 7),
        {"kind": "udp", "address": DENIED.address4, "port": 7},
        {"kind": "icmp", "address": DENIED.address6},
        _raw(METADATA, 80),
    )
    assert all(one.is_answered for one in (anywhere, private, udp, icmp)), (anywhere, private, udp, icmp)
    assert not metadata.is_answered
    assert not stage.internet.journal(since_s=since_s).reached(METADATA)


@pytest.mark.parametrize(
    "egress", [{"allow_all": True}, {"allowed_cidrs": [{"cidr": "45.45.40.0/24"}]}], ids=["allow_all", "cidr"]
)
def test_the_hosts_own_services_are_out_of_reach(stage: Stage, egress: dict[str, Any]) -> None:
    devbox = stage.devbox(stage.policy(**egress))
    gateway = run(devbox, "awk '/nameserver/ {print $2; exit}' /etc/resolv.conf").stdout.strip()
    with socket.create_server(("", 9999)) as listener:
        listener.settimeout(0.2)
        tried = attempt(devbox, *(_raw(address, 9999) for address in (HOST_ADDRESS4, gateway, "127.0.0.1")))
        assert not any(one.is_answered for one in tried)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_one_devbox_does_not_reach_another(stage: Stage) -> None:
    policy = stage.policy(allow_all=True)
    server, client = stage.devbox(policy), stage.devbox(policy)
    find = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('45.45.45.10', 9)); print(s.getsockname()[0])"
    address = run(server, f'python3 -c "{find}"').stdout.strip()
    server.cmd.exec_async("cd /tmp && timeout 30 python3 -m http.server 8000 --bind 0.0.0.0 >/tmp/access.log 2>&1")
    ready = run(
        server,
        "for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:8000/ && exit 0; sleep 0.05; done; exit 1",
    )
    assert ready.exit_code == 0
    before = run(server, "wc -l < /tmp/access.log").stdout
    (tried,) = attempt(client, _http(address, "server", 8000))
    assert not tried.is_answered
    assert run(server, "wc -l < /tmp/access.log").stdout == before


def test_a_policy_of_nothing_lets_nothing_out(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy())
    since_s = stage.internet.now_s()
    names: tuple[Host, ...] = (ALLOWED, DENIED)
    tried = attempt(
        devbox,
        *(_lookup(host.name) for host in names),
        *(_tls(host.address4, host.name) for host in names),
        *(_tls(host.address6, host.name) for host in names),
    )
    assert not any(one.is_answered for one in tried)
    time.sleep(0.2)  # what was on its way would have arrived
    journal = stage.internet.journal(since_s=since_s)
    assert (journal.connections, journal.packets, journal.queries) == ([], [], [])
