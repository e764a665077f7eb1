"""The loop: order within a turn, timers, and descriptors that change hands."""

import os
import select
import socket

import pytest

from outgate.dataplane.loop import Loop
from support.gate_harness import FakeClock


def test_a_turn_goes_events_timers_soon_turn_end() -> None:
    clock = FakeClock()
    loop = Loop(monotonic_s=clock)
    order: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.register(ours.fileno(), select.EPOLLIN, lambda _events: order.append("event"))
        loop.call_at(clock.now_s, lambda: order.append("timer"))
        loop.call_soon(lambda: order.append("soon"))
        loop.at_turn_end(lambda: order.append("end"))
        theirs.send(b"x")
        loop.run_once(0)
    assert order == ["event", "timer", "soon", "end"]


def test_timers_run_when_they_are_due_in_their_order_and_once() -> None:
    clock = FakeClock()
    loop = Loop(monotonic_s=clock)
    ran: list[int] = []
    start_s = loop.now()
    for delay_s in (3, 1, 2):
        loop.call_at(start_s + delay_s, lambda delay_s=delay_s: ran.append(delay_s))  # type: ignore[misc] # a bound default
    loop.run_once(0)
    assert ran == []
    clock.now_s += 2
    loop.run_once(0)
    assert ran == [1, 2]
    clock.now_s += 2
    loop.run_once(0)
    loop.run_once(0)
    assert ran == [1, 2, 3]


def test_a_cancelled_timer_does_not_run() -> None:
    clock = FakeClock()
    loop = Loop(monotonic_s=clock)
    ran: list[str] = []
    timer = loop.call_at(clock.now_s, lambda: ran.append("timer"))
    timer.cancel()
    timer.cancel()
    loop.run_once(0)
    assert ran == []


def test_cancelled_timers_do_not_pile_up() -> None:
    loop = Loop(monotonic_s=FakeClock())
    kept = loop.call_at(2000, lambda: None)
    for _ in range(5000):
        loop.call_at(3000, lambda: None).cancel()
    assert len(loop._timers) < 1200
    assert kept in loop._timers


def test_soon_means_this_turn_and_what_is_asked_then_the_next() -> None:
    loop = Loop(monotonic_s=FakeClock())
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        loop.call_soon(lambda: ran.append("second"))

    loop.call_soon(first)
    loop.run_once(0)
    assert ran == ["first"]
    loop.run_once()
    assert ran == ["first", "second"]


def test_an_event_of_a_closed_descriptor_does_not_reach_its_successor() -> None:
    loop = Loop()
    got: list[str] = []
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    b.send(b"x")
    d.send(b"x")
    numbers = {a.fileno(), c.fileno()}
    replaced: list[socket.socket] = []

    def replace(own: socket.socket, other: socket.socket) -> None:
        # Whichever comes first closes the other, whose number a new socket takes within the same turn.
        got.append("first")
        number = other.fileno()
        loop.unregister(number)
        other.close()
        loop.unregister(own.fileno())
        fresh, peer = socket.socketpair()
        if fresh.fileno() != number:
            os.dup2(fresh.fileno(), number)
        replaced.extend((fresh, peer))
        loop.register(number, select.EPOLLIN, lambda _events: got.append("successor"))

    loop.register(a.fileno(), select.EPOLLIN, lambda _events: replace(a, c))
    loop.register(c.fileno(), select.EPOLLIN, lambda _events: replace(c, a))
    loop.run_once(0)
    assert got == ["first"]
    for one in (a, b, c, d, *replaced):
        one.close()
    for number in numbers:
        try:
            os.close(number)
        except OSError:
            continue


def test_a_faulty_callback_leaves_by_default_and_is_reported_otherwise() -> None:
    def fail() -> None:
        raise ValueError("mine")

    loop = Loop(monotonic_s=FakeClock())
    loop.call_soon(fail)
    with pytest.raises(ValueError, match="mine"):
        loop.run_once(0)
    seen: list[Exception] = []
    ran: list[str] = []
    loop = Loop(on_error=seen.append, monotonic_s=FakeClock())
    loop.call_soon(fail)
    loop.call_soon(lambda: ran.append("next"))
    loop.run_once(0)
    assert [str(error) for error in seen] == ["mine"]
    assert ran == ["next"]


def test_stop_ends_run_after_the_turn() -> None:
    loop = Loop()
    ran: list[str] = []
    loop.call_soon(loop.stop)
    loop.at_turn_end(lambda: ran.append("end"))
    loop.run()
    assert ran == ["end"]


def test_a_loop_that_was_stopped_before_it_ran_does_not_run() -> None:
    loop = Loop()
    ran: list[str] = []
    loop.at_turn_end(lambda: ran.append("end"))
    loop.stop()
    loop.run()
    assert ran == []
