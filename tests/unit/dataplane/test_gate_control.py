"""The control socket: frames however they are cut, an agent that hangs up, and one that does not read."""

import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.gate_config import GateConfig, host_context, parse_server, upstream_servers
from outgate.dataplane.gate_control import (
    ControlError,
    FrameStream,
    GateControl,
    decode_from_gate,
    encode_frame,
    receive_config,
)
from outgate.dataplane.loop import Loop
from outgate.errors import InvalidValueError
from outgate.model.desired import FlowRecord, GateApplied, GateApply, GateReady, GateRecords, GateToAgent, GateWarning

RECORD = FlowRecord(
    time_ms=1, devbox_id="d", policy_id="p", revision=1, verdict="deny", reason="no_rule", point="dns", name="x" * 200
)
CONFIG = GateConfig(
    namespace="/run/netns/x", dns_addresses=("10.213.0.1",), resolvers=("192.0.2.53", "[::1]:5353"), relay_port=15001
)


class Bench:
    def __init__(self) -> None:
        self.agent, self.ours = socket.socketpair()
        self.agent.setblocking(False)
        self.loop = Loop()
        self.updates: list[GateApply] = []
        self.ends: list[str] = []
        self.control = GateControl(self.loop, self.ours, self._apply, self.ends.append)
        self._frames = FrameStream()

    def _apply(self, update: GateApply) -> GateApplied:
        self.updates.append(update)
        return GateApplied(revision=update.revision)

    def turn(self) -> None:
        self.loop.run_once(0)

    def read(self) -> list[GateToAgent]:
        messages: list[GateToAgent] = []
        while True:
            self.turn()
            try:
                data = self.agent.recv(1 << 16)
            except BlockingIOError:
                return messages
            messages += [decode_from_gate(content) for content in self._frames.receive(data)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    with made.agent, made.ours:
        yield made


def test_an_update_is_answered(bench: Bench) -> None:
    update = GateApply(revision=7, full=True, host_addresses=("192.0.2.1",))
    frame = encode_frame(update)
    bench.agent.send(frame[:3])
    bench.turn()
    bench.agent.send(frame[3:] + encode_frame(GateApply(revision=8, full=False)))
    assert bench.read() == [GateApplied(revision=7), GateApplied(revision=8)]
    assert bench.updates[0] == update


def test_everything_goes_out_in_order(bench: Bench) -> None:
    bench.control.send(GateReady(relay_port=15001))
    assert bench.control.send_records(GateRecords((RECORD,), 3))
    bench.control.send(GateWarning("code", "text"))
    assert bench.read() == [GateReady(relay_port=15001), GateRecords((RECORD,), 3), GateWarning("code", "text")]


def test_records_wait_for_an_agent_that_does_not_read_and_answers_do_not(bench: Bench) -> None:
    batch = GateRecords((RECORD,) * 256)
    while bench.control.send_records(batch):
        bench.turn()
    bench.control.send(GateApplied(revision=1))
    messages = bench.read()
    assert messages[-1] == GateApplied(revision=1)
    assert bench.control.send_records(batch)
    assert bench.ends == []


def test_an_agent_that_never_reads_is_gone(bench: Bench) -> None:
    for _ in range(20):
        bench.control.send(GateWarning("code", "x" * (1 << 20)))
    assert bench.ends == ["the agent does not read."]


def test_the_end_of_the_agent_is_the_end(bench: Bench) -> None:
    bench.agent.close()
    bench.turn()
    assert bench.ends == [""]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", b"\0\0\0\2{}", b"\0\0\0\1x", encode_frame(GateReady(relay_port=1))],
    ids=["an absurd length", "an empty object", "no JSON", "another message"],
)
def test_nonsense_is_the_end(bench: Bench, data: bytes) -> None:
    bench.agent.send(data)
    bench.turn()
    (text,) = bench.ends
    assert text
    assert bench.updates == []


@given(st.lists(st.binary(max_size=60), max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_cuts_do_not_matter(contents: list[bytes], cuts: list[int]) -> None:
    data = b"".join(len(content).to_bytes(4, "big") + content for content in contents)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    stream = FrameStream()
    found: list[bytes] = []
    for start, end in pairwise(places):
        found += stream.receive(data[start:end])
    assert found == contents


def test_the_configuration_comes_first() -> None:
    agent, ours = socket.socketpair()
    with agent, ours:
        agent.send(encode_frame(CONFIG))
        assert receive_config(ours) == CONFIG
        agent.send(encode_frame(GateApply(revision=1, full=True)))
        with pytest.raises(ControlError):
            receive_config(ours)
        agent.close()
        with pytest.raises(ControlError, match="hung up"):
            receive_config(ours)


def test_the_configuration_is_understood() -> None:
    assert upstream_servers(CONFIG) == (ServerAddress("192.0.2.53", 53), ServerAddress("::1", 5353))
    context = host_context(
        GateConfig(
            namespace="",
            dns_addresses=(),
            resolvers=(),
            relay_port=0,
            devbox_networks=("10.213.0.0/20", "fd00::/64"),
            internal_zones=("Corp.Example",),
            address_bound=False,
            mirror_hosts=("*.mirror.example",),
        )
    )
    assert [str(network) for network in context.devbox_networks] == ["10.213.0.0/20", "fd00::/64"]
    assert context.internal_zones == ("corp.example",)
    assert not context.address_bound
    assert [str(pattern) for pattern in context.mirror_hosts] == ["*.mirror.example"]


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ServerAddress("192.0.2.53", 53)),
        ("192.0.2.53:5353", ServerAddress("192.0.2.53", 5353)),
        ("2001:DB8::1", ServerAddress("2001:db8::1", 53)),
        ("[2001:db8::1]", ServerAddress("2001:db8::1", 53)),
        ("[2001:db8::1]:54", ServerAddress("2001:db8::1", 54)),
    ],
)
def test_resolvers(text: str, server: ServerAddress) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:x", "[::1", "[::1]5"])
def test_what_is_no_resolver(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_server(text)


def test_no_resolver_at_all_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="OUTGATE_UPSTREAM_DNS"):
        upstream_servers(GateConfig(namespace="", dns_addresses=(), resolvers=(), relay_port=0))
