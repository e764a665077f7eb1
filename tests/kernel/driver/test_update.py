"""Updates while flows run: what lost its rule dies at both ends, everything else does not notice."""

import contextlib
import socket
import threading
from dataclasses import replace
from ipaddress import ip_address

import pytest

from outgate.dataplane.linux import LinuxDriver
from outgate.model.addresses import Protocol
from outgate.model.plan import PolicyPlan, grant_of_allow_all
from support.driver_world import ALLOWED4, DENIED_WITHIN_S, OTHER4, OTHER6, World, cidr_plan, everything_plan

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ALLOWED_NET, OTHER_NET = "45.45.46.0/24", "45.45.47.0/24"
WAIT_S = 20.0
SILENT_S = 0.3
"""Bytes that pass are there at once; a slow machine may hide some, and accuses nobody."""


def flow(world: World, slot: int, address: str, port: int = 443) -> tuple[socket.socket, socket.socket]:
    server = world.far.listen(address, port)
    client = world.connect(slot, address, port)
    accepted, _ = server.accept()
    server.close()
    for end in (client, accepted):
        end.settimeout(WAIT_S)
    return client, accepted


def passes(sender: socket.socket, receiver: socket.socket, *, wait_s: float = WAIT_S) -> bool:
    receiver.settimeout(wait_s)
    try:
        sender.sendall(b"still here")
        return receiver.recv(100) == b"still here"
    except OSError:
        return False


def is_reset(end: socket.socket) -> bool:
    end.settimeout(WAIT_S)
    try:
        end.recv(10)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def tighten(driver: LinuxDriver, world: World, *plans: PolicyPlan) -> int:
    """Put the plans in force, as the agent does it; the number of sockets destroyed."""
    applied = driver.set(world.state(*plans, boxes={0: 16}))
    return driver.abort_revoked(applied.revoked_grants, {"dbx_0"})


def names_only(number: int) -> PolicyPlan:
    return PolicyPlan(number, grant_of_allow_all(number), frozenset(), (), ())


def test_a_revoked_flow_dies_at_both_ends_and_another_goes_on(world: World) -> None:
    driver = world.driver()
    both = cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535), (OTHER_NET, 21, None, 1, 65535))
    driver.set(world.state(both, boxes={0: 16}))
    doomed, kept = flow(world, 0, OTHER4), flow(world, 0, ALLOWED4)

    with world.far.tap() as tap:
        assert tighten(driver, world, cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535))) == 1
        doomed[0].setblocking(False)
        with pytest.raises(ConnectionAbortedError):  # at once: there is nothing left to wait for
            doomed[0].recv(10)
        assert is_reset(doomed[1])
        arrived = tap.packets(lambda packet: packet[16:20] == socket.inet_aton(OTHER4))

    assert len(arrived) == 1
    assert has_reset_and_no_payload(arrived[0])
    assert passes(*kept)
    assert passes(*reversed(kept))
    assert world.refused_within_s(0, OTHER4) < DENIED_WITHIN_S


def has_reset_and_no_payload(packet: bytes) -> bool:
    total = int.from_bytes(packet[2:4], "big")
    return bool(packet[33] & 0x04) and total == 20 + (packet[32] >> 4) * 4


def test_without_help_from_the_driver_the_next_packet_of_either_end_resets_it(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (OTHER_NET, 21, None, 1, 65535)), boxes={0: 16}))
    from_box, from_far = flow(world, 0, OTHER4, 443), flow(world, 0, OTHER4, 444)

    driver.set(world.state(names_only(16), boxes={0: 16}))
    with world.far.tap() as tap:
        from_box[0].send(b"does not get out")
        assert is_reset(from_box[0])
        from_far[1].send(b"does not get in")
        assert is_reset(from_far[1])
        arrived = tap.packets(lambda packet: b"does not" in packet)

    assert arrived == []
    from_far[0].settimeout(0.3)
    with pytest.raises(TimeoutError):
        from_far[0].recv(100)


@pytest.mark.parametrize("speaker", ["devbox", "server"])
def test_a_flow_that_another_rule_covers_lives_on_under_its_grant(world: World, speaker: str) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    client, accepted = flow(world, 0, ALLOWED4)

    for grant in (30, 31, 32):
        assert tighten(driver, world, cidr_plan(16, ("45.45.46.1/32", grant, Protocol.TCP, 443, 443))) == 0
        sender, receiver = (client, accepted) if speaker == "devbox" else (accepted, client)
        assert passes(sender, receiver)

    assert passes(client, accepted)
    assert tighten(driver, world, names_only(16)) == 1
    assert is_reset(client)
    assert is_reset(accepted)


def test_widening_to_everything_keeps_flows_and_narrowing_resets_all_of_them(world: World) -> None:
    driver = world.driver()
    narrow = cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535))
    driver.set(world.state(narrow, boxes={0: 16}))
    early = flow(world, 0, ALLOWED4)

    assert tighten(driver, world, everything_plan(16)) == 0
    assert passes(*early)
    late4, late6 = flow(world, 0, OTHER4), flow(world, 0, OTHER6)
    assert passes(*late4)
    assert passes(*late6)

    # Never inspected, so none lives on, not even those that the rule covers.
    assert tighten(driver, world, narrow) == 3
    for end in (*early, *late4, *late6):
        assert is_reset(end)
    assert passes(*flow(world, 0, ALLOWED4, 445))


def test_udp_and_echo_stop_with_the_update(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (OTHER_NET, 21, None, 1, 65535)), boxes={0: 16}))
    receiver = world.far.datagrams(OTHER4, 9000)
    sender = world.udp(0, OTHER4, 9000)
    _, peer = receiver.recvfrom(100)

    tighten(driver, world, names_only(16))

    receiver.sendto(b"late", peer)
    sender.send(b"later")
    receiver.settimeout(0.3)
    with pytest.raises(OSError, match=r"[Tt]imed out|refused|host"):
        receiver.recv(100)
    with pytest.raises(OSError, match=r"host|refused"):
        sender.recv(100)


def test_a_policy_that_is_removed_takes_its_flows_along(world: World) -> None:
    driver = world.driver()
    plans = (cidr_plan(16, (OTHER_NET, 21, None, 1, 65535)), cidr_plan(17, (OTHER_NET, 22, None, 1, 65535)))
    driver.set(world.state(*plans, boxes={0: 16, 1: 17}))
    stays, goes = flow(world, 0, OTHER4, 443), flow(world, 1, OTHER4, 444)

    applied = driver.set(world.state(plans[0], boxes={0: 16}))

    assert applied.revoked_grants == {22}
    assert passes(*stays)
    assert not passes(*goes[::-1], wait_s=SILENT_S)


def test_a_devbox_that_moves_to_another_policy_keeps_no_flow(world: World) -> None:
    driver = world.driver()
    plans = (cidr_plan(16, (OTHER_NET, 21, None, 1, 65535)), cidr_plan(17, (ALLOWED_NET, 22, None, 1, 65535)))
    driver.set(world.state(*plans, boxes={0: 16, 1: 16, 2: 17}))
    client, accepted = flow(world, 0, OTHER4)
    neighbour = flow(world, 1, OTHER4, 444)

    for changed in (plans[1], cidr_plan(17, (ALLOWED_NET, 23, None, 1, 65535))):
        driver.set(world.state(plans[0], changed, boxes={0: 17, 1: 16, 2: 17}))
        assert not passes(client, accepted, wait_s=SILENT_S)
        assert world.refused_within_s(0, OTHER4) < DENIED_WITHIN_S
        assert passes(*flow(world, 0, ALLOWED4))
        assert passes(*neighbour)
        driver.set(world.state(plans[0], changed, boxes={0: 16, 1: 16, 2: 17}))
        client, accepted = flow(world, 0, OTHER4)


def test_many_flows_die_at_once(world: World) -> None:
    flows = 300
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (OTHER_NET, 21, None, 1, 65535)), boxes={0: 16}))
    server = world.far.listen(OTHER4)
    clients = [world.connect(0, OTHER4) for _ in range(flows)]
    accepted = [server.accept()[0] for _ in range(flows)]

    assert tighten(driver, world, names_only(16)) == flows
    assert all(is_reset(end) for end in (*clients, *accepted))


def test_two_hundred_quick_updates_never_let_out_what_both_sides_of_each_deny(world: World) -> None:
    """Every state denies OTHER4; traffic to it never stops; the far side hears nothing of it."""
    driver = world.driver()
    base = cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535))
    states = [
        world.state(base, boxes={0: 16}),
        world.state(cidr_plan(16, (ALLOWED_NET, 40, Protocol.TCP, 443, 443)), boxes={0: 16, 1: 16}),
        world.state(
            cidr_plan(16, ("45.45.46.0/25", 41, None, 1, 65535), ("45.45.46.128/25", 42, None, 1, 65535)), boxes={0: 16}
        ),
        # The devbox comes to a policy that allowed OTHER4 until this very moment, and back.
        world.state(base, cidr_plan(17, (OTHER_NET, 50, None, 1, 65535)), boxes={0: 16}),
        world.state(base, cidr_plan(17, (ALLOWED_NET, 51, None, 1, 65535)), boxes={0: 17}),
        world.state(names_only(16), boxes={0: 16}),
    ]
    driver.set(states[0])
    client, accepted = flow(world, 0, ALLOWED4)
    client.settimeout(None)
    done = threading.Event()
    attempts = [0]

    def hammer() -> None:
        sender = world.udp(0, OTHER4, 9000)
        while not done.is_set():
            attempts[0] += 1
            with contextlib.suppress(OSError):
                sender.send(b"denied by every state")
            with contextlib.suppress(OSError):
                world.connect(0, OTHER4, timeout_s=0.2).close()

    with world.far.tap() as tap:
        thread = threading.Thread(target=hammer)
        thread.start()
        try:
            for round_ in range(200):
                driver.set(states[round_ % len(states)])
        finally:
            done.set()
            thread.join()
        arrived = tap.packets(lambda packet: packet[0] >> 4 == 4 and packet[16:20] == socket.inet_aton(OTHER4))

    assert attempts[0] > 20
    assert arrived == []
    assert accepted.fileno() >= 0


def test_an_allowed_stream_survives_a_hundred_updates_without_a_gap(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    client, accepted = flow(world, 0, ALLOWED4)
    accepted.settimeout(None)
    sent = 64 << 20
    chunk = bytes(1 << 16)

    def push() -> None:
        for _ in range(sent // len(chunk)):
            accepted.sendall(chunk)
        accepted.close()

    thread = threading.Thread(target=push)
    thread.start()
    received = 0
    grant = 100
    while data := client.recv(1 << 20):
        received += len(data)
        if received // (sent // 100) > grant - 100:
            grant += 1
            # Each time another grant for the same network, and only the server speaks.
            assert tighten(driver, world, cidr_plan(16, ("45.45.0.0/16", grant, None, 1, 65535))) == 0
    thread.join()

    assert received == sent
    assert grant > 150


def test_host_addresses_close_when_they_appear(world: World) -> None:
    driver = world.driver()
    state = world.state(everything_plan(16), boxes={0: 16})
    driver.set(state)
    server = world.far.listen(OTHER4)
    world.connect(0, OTHER4).close()
    server.accept()[0].close()

    driver.set(replace(state, host_addresses=state.host_addresses | {ip_address(OTHER4), ip_address(OTHER6)}))

    assert world.refused_within_s(0, OTHER4) < DENIED_WITHIN_S
    assert world.refused_within_s(0, OTHER6) < DENIED_WITHIN_S
    driver.set(state)
    world.connect(0, OTHER4).close()
