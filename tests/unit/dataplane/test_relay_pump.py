"""Channels and pipes, on socket pairs: every byte once, in order, and pipes only while bytes are in them."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.pipes import PipePool
from outgate.dataplane.relay_pump import Channel, Pumped


@dataclass
class Bench:
    """A program's end, a channel in the middle, another program's end."""

    writer: socket.socket
    source: socket.socket
    sink: socket.socket
    reader: socket.socket
    channel: Channel
    pool: PipePool

    def close(self) -> None:
        self.channel.release(self.pool)
        self.pool.close()
        for end in (self.writer, self.source, self.sink, self.reader):
            end.close()


def make_bench() -> Bench:
    writer, source = socket.socketpair()
    sink, reader = socket.socketpair()
    for end in (writer, source, sink, reader):
        end.setblocking(False)
    return Bench(writer, source, sink, reader, Channel(source.fileno(), sink.fileno()), PipePool())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = make_bench()
    yield made
    made.close()


def write_some(end: socket.socket, data: bytes) -> int:
    """How much of ``data`` the socket takes."""
    try:
        return end.send(data)
    except BlockingIOError:
        return 0


def read_some(end: socket.socket, size: int = 1 << 20) -> bytes:
    try:
        return end.recv(size)
    except BlockingIOError:
        return b""


def test_a_small_message_is_moved_without_a_pipe(bench: Bench) -> None:
    bench.writer.send(b"hello")
    assert bench.channel.move(bench.pool) == (Pumped.WAITING, 5)
    assert read_some(bench.reader) == b"hello"
    assert bench.channel.is_empty
    assert bench.channel.moved == 5


def test_nothing_is_moved_when_nothing_is_there(bench: Bench) -> None:
    assert bench.channel.move(bench.pool) == (Pumped.WAITING, 0)
    assert not bench.channel.is_source_done


def test_the_end_is_read_behind_a_small_message_when_it_was_announced(bench: Bench) -> None:
    bench.writer.send(b"bye")
    bench.writer.shutdown(socket.SHUT_WR)
    bench.channel.is_ending = True
    bench.channel.move(bench.pool)
    assert bench.channel.is_source_done
    assert read_some(bench.reader) == b"bye"


def test_no_more_than_the_limit_is_taken(bench: Bench) -> None:
    bench.writer.send(b"x" * 50_000)
    assert bench.channel.move(bench.pool, 0) == (Pumped.WAITING, 0)
    assert bench.channel.move(bench.pool, 10) == (Pumped.WAITING, 10)
    assert bench.channel.move(bench.pool, 30_000) == (Pumped.WAITING, 30_000)
    assert len(read_some(bench.reader)) == 30_010
    assert len(read_some(bench.source)) == 19_990


def test_what_is_sent_goes_behind_what_is_on_its_way(bench: Bench) -> None:
    while write_some(bench.sink, b"a" * 4096):
        pass  # the sink is full
    bench.writer.send(b"b" * 100_000)
    bench.channel.move(bench.pool)
    assert not bench.channel.send(b"c" * 10)
    received = b""
    while part := read_some(bench.reader):
        received += part
        bench.channel.move(bench.pool)
    taken = 16 * 1024  # what had left the source when ours came
    assert received.lstrip(b"a") == b"b" * taken + b"c" * 10 + b"b" * (100_000 - taken)
    assert bench.channel.is_empty


def test_an_idle_channel_holds_no_pipe(bench: Bench) -> None:
    bench.writer.send(b"x" * 60_000)
    bench.channel.move(bench.pool)
    read_some(bench.reader)
    bench.channel.move(bench.pool)
    assert bench.channel.pipe is None
    assert bench.channel.is_empty


def test_a_pipe_with_bytes_of_a_flow_that_ended_is_not_lent_again() -> None:
    pool = PipePool()
    pipe = pool.take()
    os.write(pipe.write_fd, b"secret")
    pipe.held = 6
    pool.give_back(pipe)
    other = pool.take()
    with pytest.raises(BlockingIOError):
        os.read(other.read_fd, 10)
    pool.give_back(other)
    assert pool.take() is other
    other.close()


def test_errors_of_the_sink_come_out(bench: Bench) -> None:
    bench.reader.close()
    bench.writer.send(b"hello")
    with pytest.raises(BrokenPipeError):
        bench.channel.move(bench.pool)


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "move", "read", "send"]), st.integers(0, 200_000)), min_size=1, max_size=40
    )
)
def test_every_byte_arrives_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    bench = make_bench()
    try:
        pattern = bytes(range(251)) * 1000
        from_source, from_us, received = bytearray(), bytearray(), bytearray()
        for what, size in steps:
            match what:
                case "write":
                    taken = write_some(bench.writer, pattern[:size])
                    from_source += pattern[:taken]
                case "move":
                    bench.channel.move(bench.pool, size)
                case "read":
                    received += read_some(bench.reader, max(1, size))
                case _:
                    ours = b"\xff" * (size % 100)
                    bench.channel.send(ours)
                    from_us += ours
        bench.writer.shutdown(socket.SHUT_WR)
        bench.channel.is_ending = True
        while not (bench.channel.is_source_done and bench.channel.is_empty):
            bench.channel.move(bench.pool)
            received += read_some(bench.reader)
        while part := read_some(bench.reader):
            received += part
        assert received.count(0xFF) == len(from_us)
        assert received.replace(b"\xff", b"") == from_source
        assert bench.channel.moved == len(received)
    finally:
        bench.close()
