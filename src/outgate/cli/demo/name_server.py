"""The little internet's DNS server, UDP and TCP, on as many addresses as one likes."""

import asyncio
import contextlib
import socket

from outgate import clock
from outgate.cli.demo import zone
from outgate.cli.demo.control import SetRecords
from outgate.cli.demo.forgery import send_lies
from outgate.cli.demo.journal import RECORDS_MAX, Journal, Query
from outgate.cli.demo.sockets import BACKLOG, bound_socket

_MESSAGE_BYTES_MAX = 65535


class NameServer:
    """One zone for the whole internet; every message is journalled."""

    def __init__(self, journal: Journal) -> None:
        """An empty zone."""
        self._journal = journal
        self._zone: dict[str, SetRecords] = {}

    def set_records(self, records: SetRecords) -> None:
        """What a name resolves to from now on; no records at all make it NXDOMAIN."""
        name = records.name.lower().rstrip(".")
        if records.addresses or records.cname or records.raw:
            self._zone[name] = records
        else:
            self._zone.pop(name, None)

    async def serve(self, address: str, port: int) -> None:
        """Answer on ``address``, by UDP and TCP."""
        datagrams = bound_socket(address, port, socket.SOCK_DGRAM)
        asyncio.get_running_loop().add_reader(datagrams, self._answer_datagrams, datagrams)
        listener = bound_socket(address, port, socket.SOCK_STREAM)
        await asyncio.start_server(self._answer_stream, sock=listener, backlog=BACKLOG)

    def _answer_datagrams(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message, peer = listener.recvfrom(_MESSAGE_BYTES_MAX)
                question = self._note(message, peer[0], listener.getsockname()[0], "udp")
                records = None if question is None else zone.find_records(self._zone, question.name)
                if question is not None and records is not None and records.lies:
                    send_lies(listener, peer, message, question, records)
                answer = self._render(message, question)
                if records is not None and records.delay_s:
                    asyncio.get_running_loop().call_later(records.delay_s, listener.sendto, answer, peer)
                else:
                    listener.sendto(answer, peer)

    async def _answer_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, local = writer.get_extra_info("peername")[0], writer.get_extra_info("sockname")[0]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                message = await reader.readexactly(length)
                answer = self._render(message, self._note(message, peer, local, "tcp"))
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()

    def _note(self, message: bytes, source: str, server: str, transport: str) -> zone.Question | None:
        """Journal the message, whatever it is; what it asks, if it is one question."""
        question = zone.parse_question(message)
        if len(self._journal.queries) < RECORDS_MAX:
            name, type_ = ("", 0) if question is None else (question.name, question.type)
            entry = Query(clock.monotonic_s(), source, server, transport, name, type_, message)
            self._journal.queries.append(entry)
        else:
            self._journal.dropped += 1
        return question

    def _render(self, message: bytes, question: zone.Question | None) -> bytes:
        if question is None:
            return zone.render_format_error(message)
        return zone.render_answer(message, question, self._zone)
