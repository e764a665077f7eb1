"""A small real resolver for tests: UDP and TCP on one port, every question that reaches it noted.

It answers from a zone that tests write as text and change as they like. With a ``behaviour`` it misbehaves: it may
answer late, not at all, twice, wrongly, or with forged messages first.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

UDP_PAYLOAD_MAX = 1232
_POLL_S = 0.05

Behaviour = Callable[[dns.message.Message, dns.message.Message], Sequence[bytes]]
"""(question, right answer) → the datagrams to send, in order; the last one is what TCP gets."""


def make_records(owner: str, ttl: int, kind: str, data: Sequence[str]) -> dns.rrset.RRset:
    """Records of one owner; names in ``data`` are taken as absolute."""
    root = dns.name.root
    return dns.rrset.from_text_list(dns.name.from_text(owner), ttl, "IN", kind, data, origin=root, relativize=False)


_BIND_ATTEMPTS_MAX = 20


def _bind_both(family: socket.AddressFamily, address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port: one that is free for the first may be taken for the other."""
    for attempt in range(_BIND_ATTEMPTS_MAX):
        udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.bind((address, port))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, udp.getsockname()[1]))
            tcp.listen(16)
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == _BIND_ATTEMPTS_MAX - 1:
                raise
        else:
            return udp, tcp
    raise AssertionError("the last attempt raises")


class DnsServer:
    """Listens in the network namespace of the thread that makes it; serves from a thread of its own."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp, self._tcp = _bind_both(family, address, port)
        self.address = address
        self.port: int = self._udp.getsockname()[1]
        self._records: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._names: set[str] = set()
        self._is_closed = False
        self.questions: list[tuple[str, str]] = []
        """(name, type) of every question, in order of arrival."""
        self.sources: list[tuple[str, int]] = []
        """Address and port that each question by UDP came from."""
        self.ids: list[int] = []
        self.behaviour: Behaviour | None = None
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def add(self, owner: str, kind: str, *data: str, ttl: int = 300) -> None:
        """Put records into the zone, in place of those of the same owner and type."""
        self._records[owner.lower(), kind] = make_records(owner, ttl, kind, data)
        self._names.add(owner.lower())

    def names_asked(self) -> set[str]:
        """Every name that was asked for, as it arrived."""
        return {name for name, _ in self.questions}

    def close(self) -> None:
        """Stop."""
        self._is_closed = True
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        for _ in range(8):
            records = self._records.get((name, kind))
            alias = self._records.get((name, "CNAME"))
            if records is not None:
                response.answer.append(records)
                return response
            if alias is None:
                break
            response.answer.append(alias)
            name = alias[0].target.to_text(omit_final_dot=True).lower()
        if name not in self._names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def _replies(self, wire: bytes, *, is_udp: bool) -> Sequence[bytes]:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.questions.append((question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)))
        self.ids.append(query.id)
        response = self._answer(query)
        if self.behaviour is not None:
            return self.behaviour(query, response)
        whole = response.to_wire(max_size=65535)
        if is_udp and len(whole) > UDP_PAYLOAD_MAX:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return (response.to_wire(),)
        return (whole,)

    def _serve_udp(self) -> None:
        self._udp.settimeout(_POLL_S)
        while not self._is_closed:
            try:
                wire, source = self._udp.recvfrom(4096)
            except (TimeoutError, ConnectionRefusedError):
                continue
            self.sources.append(source[:2])
            for reply in self._replies(wire, is_udp=True):
                self._udp.sendto(reply, source)

    def _serve_tcp(self) -> None:
        self._tcp.settimeout(_POLL_S)
        while not self._is_closed:
            try:
                connection, _ = self._tcp.accept()
            except TimeoutError:
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                length = int.from_bytes(_receive(connection, 2), "big")
                replies = self._replies(_receive(connection, length), is_udp=False)
                if replies:
                    connection.sendall(len(replies[-1]).to_bytes(2, "big") + replies[-1])


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the client hung up")
        data += part
    return data


@contextlib.contextmanager
def dns_server(address: str = "127.0.0.1", port: int = 0) -> Iterator[DnsServer]:
    """A server for the length of a test."""
    server = DnsServer(address, port)
    try:
        yield server
    finally:
        server.close()
