"""Bounds: one devbox cannot take everything, and running out of descriptors is survived."""

import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from kernel.relay.rig import (
    BOXES,
    DEVBOX,
    OTHER_BOX4,
    OTHER_DEVBOX,
    OTHER_POLICY,
    SERVER4,
    Net,
    Router,
    accept,
    is_reset,
    policy,
    receive_exactly,
    running,
)
from outgate.dataplane.relay_context import RelayLimits
from support.hellos import hello

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def narrow() -> Iterator[tuple[Net, Router]]:
    """A relay with small limits."""
    with running(RelayLimits(flows_per_devbox=3, undecided_per_devbox=2, flows=5)) as (net, router):
        router.apply(policy("a.test"), policy("a.test", policy_id=OTHER_POLICY), boxes=BOXES)
        for devbox in (DEVBOX, OTHER_DEVBOX):
            router.teach("a.test", SERVER4, devbox=devbox)
        yield net, router


def open_flow(net: Net, listener: socket.socket, *, source: str) -> tuple[socket.socket, socket.socket]:
    client = net.connect(443, source=source)
    client.sendall(hello("a.test"))
    far = accept(listener)
    receive_exactly(far, len(hello("a.test")))
    return client, far


def resets(net: Net, *, source: str) -> bool:
    try:
        client = net.connect(443, source=source)
    except ConnectionResetError:
        return True
    with client:
        return is_reset(client)


def test_flows_are_bounded_per_devbox_and_in_all(narrow: tuple[Net, Router]) -> None:
    net, router = narrow
    with net.listen(443) as listener:
        mine = [open_flow(net, listener, source="10.213.0.2") for _ in range(3)]
        assert resets(net, source="10.213.0.2")
        others = [open_flow(net, listener, source=OTHER_BOX4) for _ in range(2)]
        assert resets(net, source=OTHER_BOX4), "the relay as a whole is full"
        for client, far in (*mine, *others):
            client.close()
            far.close()
        assert router.wait_for(lambda: not router.relay.flow_count(DEVBOX) + router.relay.flow_count(OTHER_DEVBOX))
        client, far = open_flow(net, listener, source="10.213.0.2")
        client.close()
        far.close()
    refused = [record for record in router.take_records() if record.verdict == "deny"]
    assert [(record.devbox_id, record.reason) for record in refused] == [
        (DEVBOX, "resource_limit"),
        (OTHER_DEVBOX, "resource_limit"),
    ]


def test_flows_that_say_nothing_are_bounded(narrow: tuple[Net, Router]) -> None:
    net, router = narrow
    silent = [net.connect(443) for _ in range(2)]
    assert router.wait_for(lambda: router.relay.flow_count(DEVBOX) == 2)
    assert resets(net, source="10.213.0.2")
    router.skip_time(11)
    for client in silent:
        assert is_reset(client)
        client.close()
    with net.listen(443) as listener:
        client, far = open_flow(net, listener, source="10.213.0.2")
        client.close()
        far.close()


def test_a_stranger_is_reset(narrow: tuple[Net, Router]) -> None:
    net, router = narrow
    router.apply(boxes=(BOXES[0].__class__(OTHER_DEVBOX, "acc_1", OTHER_POLICY, "box2", "10.213.0.9"),))
    try:
        assert resets(net, source=OTHER_BOX4)
    finally:
        router.apply(boxes=(BOXES[1],))
        router.teach("a.test", SERVER4, devbox=OTHER_DEVBOX)


def test_running_out_of_descriptors_resets_who_waits_and_recovers() -> None:
    with running() as (net, router):
        router.apply(policy("a.test"), policy(policy_id=OTHER_POLICY), boxes=BOXES)
        router.teach("a.test", SERVER4)
        with net.listen(443) as listener:
            kept_client, kept_far = open_flow(net, listener, source="10.213.0.2")
            stopped, go_on = threading.Event(), threading.Event()

            def stand_still() -> None:
                stopped.set()
                go_on.wait(20)

            caller = threading.Thread(target=router.call, args=(stand_still,))
            caller.start()
            stopped.wait(10)
            waiting = [net.connect(443) for _ in range(12)]  # the kernel completes these by itself
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            spare = os.open(os.devnull, os.O_RDONLY)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
            try:
                go_on.set()
                caller.join()
                router.call(lambda: None)
                assert all(is_reset(client) for client in waiting)
                kept_client.sendall(b"ping")
                assert receive_exactly(kept_far, 4) == b"ping"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                os.close(spare)
            router.skip_time(1)
            for client in waiting:
                client.close()
            client, far = open_flow(net, listener, source="10.213.0.2")
            for connection in (client, far, kept_client, kept_far):
                connection.close()


def test_a_crowd_of_one_devbox_does_not_make_another_wait() -> None:
    crowd_size = 120
    with running() as (net, router):
        router.apply(policy("a.test"), policy("b.test", policy_id=OTHER_POLICY), boxes=BOXES)
        router.teach("a.test", SERVER4)
        router.teach("b.test", SERVER4, devbox=OTHER_DEVBOX)
        with net.listen(443) as listener:
            stopped, go_on = threading.Event(), threading.Event()

            def stand_still() -> None:
                stopped.set()
                go_on.wait(20)

            caller = threading.Thread(target=router.call, args=(stand_still,))
            caller.start()
            stopped.wait(10)
            clients = []
            for source, name, count in (("10.213.0.2", "a.test", crowd_size), (OTHER_BOX4, "b.test", 1)):
                for _ in range(count):
                    clients.append(net.connect(443, source=source))
                    clients[-1].sendall(hello(name))
            go_on.set()
            caller.join()
            arrived = [accept(listener) for _ in clients]
            hellos = [receive_exactly(far, len(hello("a.test"))) for far in arrived]
            place = next(number for number, data in enumerate(hellos) if b"b.test" in data)
            assert place < crowd_size / 4, "who came last, of another devbox, is served among the first"
            for connection in (*clients, *arrived):
                connection.close()
