"""The gate process in namespaces: what reaches the resolver, what the kernel knows when, what a devbox hears."""

import socket
import threading
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from support.dns_server import make_records
from support.gate_world import GATEWAY4, GATEWAY6, WAIT_S, GateWorld, gate_world
from support.policies import make_policy

pytestmark = pytest.mark.kernel

ADDRESS, OTHER, ADDRESS6 = "93.184.216.34", "93.184.216.35", "2a0f:4444::10"


@pytest.fixture
def world() -> Iterator[GateWorld]:
    with gate_world(devboxes=2) as made:
        for name in ("example.com", "www.example.com", "denied.example"):
            made.resolver.add(name, "A", ADDRESS)
            made.resolver.add(name, "AAAA", ADDRESS6)
        yield made


def texts(response: dns.message.Message) -> set[str]:
    return {record.to_text() for rrset in response.answer for record in rrset}


@pytest.mark.parametrize("gateway", [GATEWAY4, GATEWAY6])
def test_an_allowed_name_is_answered_and_pinned_and_a_denied_one_never_leaves(world: GateWorld, gateway: str) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    assert texts(world.ask("example.com", address=gateway)) == {ADDRESS}
    assert world.pinned() == {ADDRESS}
    assert texts(world.ask("example.com", "AAAA", address=gateway)) == {ADDRESS6}
    assert world.pinned() == {ADDRESS, ADDRESS6}
    for kind in ("A", "AAAA", "TXT", "HTTPS"):
        assert world.ask("denied.example", kind, address=gateway).rcode() == dns.rcode.NXDOMAIN
        assert world.ask("data.denied.example", kind, address=gateway).rcode() == dns.rcode.NXDOMAIN
    assert world.resolver.names_asked() == {"example.com"}
    record = world.gate.wait_for_record(lambda record: record.name == "denied.example")
    assert (record.devbox_id, record.verdict, record.point) == ("dbx_1", "deny", "dns")


def test_pins_are_shown_with_their_names_by_nft(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com", "www.example.com"))
    world.ask("example.com")
    assert 'comment "example.com"' in world.listed_pins()


def test_the_kernel_has_the_pin_when_the_answer_arrives(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("*.example.com"))
    for i in range(20):
        world.resolver.add(f"n{i}.example.com", "A", f"93.184.217.{i}")
        asked = world.send(f"n{i}.example.com")
        while not asked.has_answer():
            pinned_before = world.pinned()
            if f"93.184.217.{i}" in pinned_before:
                break
        # Either the pin was seen first, or the answer is here and the pin must be, too.
        assert f"93.184.217.{i}" in world.pinned()
        asked.wait()


def test_without_the_kernels_consent_there_is_no_answer(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    world.remove_sets()
    assert world.ask("example.com").rcode() == dns.rcode.SERVFAIL
    world.make_sets()
    assert texts(world.ask("example.com")) == {ADDRESS}
    assert world.pinned() == {ADDRESS}
    world.gate.apply_policies(make_policy("example.com"))
    assert [(warning.code, bool(warning.text)) for warning in world.gate.warnings] == [
        ("pins_not_written", True),
        ("pins_not_written", False),
    ]


def test_forged_answers_are_not_taken(world: GateWorld) -> None:
    def forge(query: dns.message.Message, response: dns.message.Message) -> list[bytes]:
        forged = dns.message.make_response(query)
        forged.answer.append(make_records(query.question[0].name.to_text(), 60, "A", ["203.0.113.66"]))
        forged.id ^= 0x5555
        return [forged.to_wire(), response.to_wire()]

    world.resolver.behaviour = forge
    world.gate.apply_policies(make_policy("example.com"))
    assert texts(world.ask("example.com")) == {ADDRESS}
    assert world.pinned() == {ADDRESS}


def test_devboxes_have_their_own_policies_and_pins(world: GateWorld) -> None:
    other = make_policy("www.example.com", policy_id="npol_2", number=17)
    world.gate.apply_policies(make_policy("example.com"), other, devboxes=((1, "npol_1"), (2, "npol_2")))
    assert texts(world.ask("example.com", number=1)) == {ADDRESS}
    assert world.ask("example.com", number=2).rcode() == dns.rcode.NXDOMAIN
    assert (world.pinned(1), world.pinned(2)) == ({ADDRESS}, set())
    assert texts(world.ask("www.example.com", number=2)) == {ADDRESS}
    assert world.pinned(2) == {ADDRESS}


def test_an_update_is_in_force_for_the_next_query_and_its_pins_are_gone_when_it_is_answered(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com", "www.example.com"))
    world.resolver.add("www.example.com", "A", OTHER)
    for _ in range(3):
        world.ask("example.com")
        world.ask("www.example.com")
    assert world.pinned() == {ADDRESS, OTHER}
    world.gate.apply_policies(make_policy("www.example.com"), revision=2)
    assert world.pinned() == {OTHER}
    assert world.ask("example.com").rcode() == dns.rcode.NXDOMAIN
    assert texts(world.ask("www.example.com")) == {OTHER}
    world.gate.apply_policies(make_policy("example.com"), revision=3)
    assert texts(world.ask("example.com")) == {ADDRESS}


def test_under_allow_all_everything_is_asked_and_nothing_pinned(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy(allow_all=True))
    world.resolver.add("example.com", "MX", "10 mail.example.com")
    assert texts(world.ask("denied.example")) == {ADDRESS}
    assert texts(world.ask("example.com", "MX")) == {"10 mail.example.com."}
    assert world.ask("nowhere.example").rcode() == dns.rcode.NXDOMAIN
    assert world.pins() == []
    world.gate.apply_policies(make_policy("example.com"), revision=2)
    assert world.ask("denied.example").rcode() == dns.rcode.NXDOMAIN


def test_nothing_is_answered_before_the_first_table_and_what_was_asked_then_is(world: GateWorld) -> None:
    asked = world.send("example.com")
    time.sleep(0.2)
    assert not asked.has_answer()
    assert world.resolver.questions == []
    world.gate.apply_policies(make_policy("example.com"))
    assert texts(asked.wait()) == {ADDRESS}


def test_an_address_that_no_devbox_was_given_is_refused(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    assert world.ask("example.com", number=2).rcode() == dns.rcode.REFUSED
    assert world.resolver.questions == []


# -- TCP


def test_a_long_answer_goes_by_tcp(world: GateWorld) -> None:
    world.resolver.add("example.com", "TXT", *(f'"{i:03d}{"x" * 200}"' for i in range(40)))
    world.gate.apply_policies(make_policy(allow_all=True))
    by_udp = world.ask("example.com", "TXT")
    assert by_udp.flags & dns.flags.TC
    assert not by_udp.answer
    query = dns.message.make_query("example.com", "TXT")
    with world.socket_in(1, kind=socket.SOCK_STREAM) as opened:
        opened.connect((GATEWAY4, 53))
        dns.query.send_tcp(opened, query)
        response, _ = dns.query.receive_tcp(opened, time.time() + WAIT_S)
    assert len(texts(response)) == 40


def test_many_queries_on_one_connection_and_a_half_close(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("*.example.com"))
    queries = [
        dns.message.make_query(name, "A", id=i) for i, name in enumerate(["www.example.com", "denied.example"] * 3)
    ]
    with world.socket_in(1, kind=socket.SOCK_STREAM) as opened:
        opened.connect((GATEWAY4, 53))
        opened.sendall(b"".join(len(q.to_wire()).to_bytes(2, "big") + q.to_wire() for q in queries))
        opened.shutdown(socket.SHUT_WR)
        answers = [dns.query.receive_tcp(opened, time.time() + WAIT_S)[0] for _ in queries]
        assert opened.recv(1) == b""
    assert {(answer.id, answer.rcode()) for answer in answers} == {(i, 3 if i % 2 else 0) for i in range(6)}
    assert world.pinned() == {ADDRESS}


def test_a_devbox_has_a_bound_on_its_connections(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"), devboxes=((1, "npol_1"), (2, "npol_1")))
    opened = [world.socket_in(1, kind=socket.SOCK_STREAM) for _ in range(20)]
    for one in opened:
        one.connect((GATEWAY4, 53))
    assert opened[19].recv(1) == b""
    other = world.socket_in(2, kind=socket.SOCK_STREAM)
    other.connect((GATEWAY4, 53))
    dns.query.send_tcp(other, dns.message.make_query("example.com", "A"))
    assert texts(dns.query.receive_tcp(other, time.time() + WAIT_S)[0]) == {ADDRESS}
    for one in (*opened, other):
        one.close()


# -- fairness


def _is_answered(asking: socket.socket, query: bytes) -> bool:
    asking.send(query)
    try:
        return bool(asking.recv(4096))
    except TimeoutError:
        return False


def test_a_flood_of_one_devbox_does_not_cost_another_its_answers(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("*.example.com"), devboxes=((1, "npol_1"), (2, "npol_1")))
    stop = threading.Event()
    flood = [dns.message.make_query(f"n{i}.denied.example", "A").to_wire() for i in range(2000)]

    def send_flood() -> None:
        with world.socket_in(1) as opened:
            opened.connect((GATEWAY4, 53))
            opened.setblocking(False)
            while not stop.is_set():
                for message in flood:
                    try:
                        opened.send(message)
                    except OSError:
                        continue

    thread = threading.Thread(target=send_flood)
    thread.start()
    try:
        lost = 0
        with world.socket_in(2) as opened:
            opened.connect((GATEWAY4, 53))
            opened.settimeout(3)
            query = dns.message.make_query("www.example.com", "A").to_wire()
            in_a_row, deadline_s = 0, time.monotonic() + WAIT_S
            while in_a_row < 20 and time.monotonic() < deadline_s:  # until the flood was noticed and set apart
                in_a_row = in_a_row + 1 if _is_answered(opened, query) else 0
            for _ in range(100):
                lost += not _is_answered(opened, query)
    finally:
        stop.set()
        thread.join()
    assert lost == 0
