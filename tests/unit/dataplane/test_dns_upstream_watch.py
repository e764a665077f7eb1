"""A resolver that does not answer is a warning, after a closer look; and it ends after another."""

import socket
import time

from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.dns_upstream import ROOT_SERVERS, DnsUpstream
from outgate.dataplane.dns_upstream_watch import PROBE_EVERY_S, UPSTREAM_SILENT, UpstreamWatch
from outgate.dataplane.loop import Loop
from support.dns_server import dns_server
from support.gate_harness import FakeClock

SERVERS = (ServerAddress("192.0.2.53", 53), ServerAddress("192.0.2.54", 53))


class Watched:
    """Two resolvers; ``answering`` says which of them answer what they are probed with."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = Loop(monotonic_s=self.clock)
        self.answering = {0, 1}
        self.probed: list[int] = []
        self.said: list[str] = []
        self.watch = UpstreamWatch(self.loop, SERVERS, self._probe, self._warn)

    def _probe(self, number: int) -> None:
        self.probed.append(number)
        (self.watch.answered if number in self.answering else self.watch.failed)(number)

    def _warn(self, code: str, text: str) -> None:
        assert code == UPSTREAM_SILENT
        self.said.append(text)

    def fail(self, number: int, times: int) -> None:
        for _ in range(times):
            self.watch.failed(number)
        self.loop.run_once(0)

    def pass_rounds(self, count: int) -> None:
        for _ in range(count):
            self.clock.now_s += PROBE_EVERY_S
            self.loop.run_once(0)


def test_a_name_that_nobody_can_resolve_says_nothing_of_the_resolver() -> None:
    watched = Watched()
    for _ in range(5):
        watched.fail(0, 3)
        watched.pass_rounds(3)
    assert watched.said == []
    assert set(watched.probed) == {0}


def test_single_losses_are_not_looked_at() -> None:
    watched = Watched()
    for _ in range(10):
        watched.fail(0, 2)
        watched.watch.answered(0)
    watched.pass_rounds(3)
    assert (watched.said, watched.probed) == ([], [])


def test_silence_is_said_once_with_what_it_means_and_ends_after_two_answers() -> None:
    watched = Watched()
    watched.answering = {1}
    watched.fail(0, 3)
    watched.pass_rounds(10)
    (text,) = watched.said
    assert "192.0.2.53" in text
    assert "Lookups go to 192.0.2.54" in text
    watched.answering = {0, 1}
    watched.pass_rounds(1)
    assert len(watched.said) == 1
    watched.pass_rounds(1)
    assert watched.said[1:] == [""]
    probes = len(watched.probed)
    watched.pass_rounds(5)
    assert len(watched.probed) <= probes + 1  # nobody is asked without need


def test_one_that_answers_now_and_then_does_not_make_it_flap() -> None:
    watched = Watched()
    watched.answering = set()
    watched.fail(0, 3)
    watched.pass_rounds(3)
    assert len(watched.said) == 1
    for _ in range(20):
        watched.answering ^= {0}
        watched.pass_rounds(1)
    assert len(watched.said) == 1


def test_when_all_are_silent_it_says_that_lookups_fail() -> None:
    watched = Watched()
    watched.answering = set()
    watched.fail(0, 3)
    watched.fail(1, 3)
    watched.pass_rounds(4)
    assert "192.0.2.53 (port 53), 192.0.2.54 (port 53)" in watched.said[-1]
    assert "fail" in watched.said[-1]
    watched.answering = {0, 1}
    watched.pass_rounds(4)
    assert watched.said[-1] == ""


class OwnSockets:
    def take(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def test_the_upstream_side_tells_it_of_real_silence_and_of_real_answers() -> None:
    clock = FakeClock()
    loop = Loop(monotonic_s=clock)
    said: list[tuple[str, str]] = []
    with dns_server() as server:
        server.behaviour = lambda _question, _answer: ()
        address = ServerAddress(server.address, server.port)
        upstream = DnsUpstream(loop, OwnSockets(), (address,), warn=lambda code, text: said.append((code, text)))
        upstream.ask(ROOT_SERVERS, lambda _outcome: None)
        while not said:
            clock.now_s += 0.05
            loop.run_once(0)
        assert said[0][0] == UPSTREAM_SILENT
        assert server.address in said[0][1]
        server.behaviour = None
        (watched,) = upstream._watch._servers
        while len(said) < 2:
            # Time stands still while an answer is under way, so that none is late.
            heard = watched.answers
            clock.now_s += PROBE_EVERY_S
            waited_until_s = time.monotonic() + 1.0
            while watched.answers == heard and len(said) < 2 and time.monotonic() < waited_until_s:
                loop.run_once(0.01)
        assert said[1] == (UPSTREAM_SILENT, "")
        upstream.close()
