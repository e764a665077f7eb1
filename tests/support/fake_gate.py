"""Something that answers lookups where the DNS gate listens, and what it was asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from outgate.dataplane import netns
from outgate.dataplane.layout import NetworkLayout

STOP = b"stop"
ANSWER = b"answer"


def _answer_datagrams(server: socket.socket, asked: list[str]) -> None:
    while True:
        data, peer = server.recvfrom(512)
        if data == STOP:
            return
        asked.append(peer[0])
        server.sendto(ANSWER, peer)


def _answer_streams(server: socket.socket, asked: list[str]) -> None:
    while True:
        client, peer = server.accept()
        with client:
            if client.recv(512) == STOP:
                return
            asked.append(peer[0])
            client.sendall(ANSWER)


def _listen(layout: NetworkLayout) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    with netns.entered(layout.router_namespace):
        for address, family in ((str(layout.gateway4), socket.AF_INET), (str(layout.gateway6), socket.AF_INET6)):
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            datagrams.bind((address, 53))
            sockets += [datagrams, socket.create_server((address, 53), family=family)]
    return sockets


@contextmanager
def fake_gate(layout: NetworkLayout) -> Iterator[list[str]]:
    """Answer ``answer`` to every lookup at the gateway; yields the addresses that asked."""
    asked: list[str] = []
    sockets = _listen(layout)
    threads = [
        threading.Thread(
            target=_answer_datagrams if each.type == socket.SOCK_DGRAM else _answer_streams, args=(each, asked)
        )
        for each in sockets
    ]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        with netns.entered(layout.router_namespace):
            for each in sockets:
                with socket.socket(each.family, each.type) as stopper:
                    stopper.connect(each.getsockname()[:2])
                    stopper.send(STOP)
        for thread in threads:
            thread.join()
        for each in sockets:
            each.close()
