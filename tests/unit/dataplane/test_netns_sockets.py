"""Sockets made by the thread that stays behind."""

import socket
import threading

import pytest

from outgate.dataplane.netns_sockets import NamespaceSockets

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


def test_sockets_are_fresh_and_do_not_block() -> None:
    source = NamespaceSockets((socket.AF_INET,))
    try:
        taken = [source.take(socket.AF_INET, kind) for kind in (UDP, TCP) for _ in range(100)]
        assert len({one.fileno() for one in taken}) == 200
        assert {(one.family, one.type) for one in taken} == {(socket.AF_INET, UDP), (socket.AF_INET, TCP)}
        assert not any(one.getblocking() for one in taken)
        for one in taken:
            one.close()
    finally:
        source.close()


def test_the_thread_prepares_itself_first_and_ends_with_close() -> None:
    seen: list[str] = []
    source = NamespaceSockets((socket.AF_INET,), prepare=lambda: seen.append(threading.current_thread().name))
    assert seen == ["host-sockets"]
    source.close()
    assert "host-sockets" not in {thread.name for thread in threading.enumerate()}


def test_what_goes_wrong_in_the_preparation_is_raised_here() -> None:
    def fail() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        NamespaceSockets((socket.AF_INET,), prepare=fail)
