"""The little internet's process: one asyncio loop in the far namespace, told what to be over a unix socket.

Started as ``python -m outgate.cli.demo.machine CONTROL_SOCKET CA_FILE INTERFACE`` inside its namespace; ends when
its standard input does, so that it never outlives who made it.
"""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import msgspec

from outgate import clock
from outgate.cli.demo.certificates import Certificates, TlsLayer
from outgate.cli.demo.connection import FarConnection
from outgate.cli.demo.control import (
    LINE_BYTES_MAX,
    AddHost,
    CloseConnections,
    ReadJournal,
    Reply,
    Request,
    Service,
    ServiceKind,
    SetRecords,
)
from outgate.cli.demo.journal import RECORDS_MAX, Connection, Datagram, Journal, select
from outgate.cli.demo.name_server import NameServer
from outgate.cli.demo.services import SERVICES
from outgate.cli.demo.sockets import BACKLOG, bound_socket
from outgate.cli.demo.tap import Tap

_UDP_KINDS = (ServiceKind.UDP_ECHO, ServiceKind.UDP_SINK)


class Machine:
    """All hosts of the little internet and what reached them."""

    def __init__(self, ca_file: Path, interface: str) -> None:
        """Nothing listens yet but the tap on ``interface``."""
        self._certificates = Certificates(ca_file)
        self._journal = Journal()
        self._names = NameServer(self._journal)
        self._connections: set[FarConnection] = set()
        self._tap = Tap(interface)
        asyncio.get_running_loop().add_reader(self._tap, lambda: self._tap.drain(clock.monotonic_s()))

    async def serve_control(self, path: Path) -> asyncio.Server:
        """Listen for requests on ``path``."""
        return await asyncio.start_unix_server(self._talk, path, limit=LINE_BYTES_MAX)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder, encoder = msgspec.json.Decoder(Request), msgspec.json.Encoder()
        while line := await reader.readline():
            try:
                reply = await self._carry_out(decoder.decode(line))
            except (OSError, ValueError) as error:
                reply = Reply(error=str(error))
            writer.write(encoder.encode(reply) + b"\n")
            await writer.drain()
        writer.close()

    async def _carry_out(self, request: Request) -> Reply:
        match request:
            case AddHost():
                await self._add_host(request)
            case SetRecords():
                self._names.set_records(request)
            case ReadJournal():
                # What the kernel already has counts as arrived.
                self._tap.drain(clock.monotonic_s())
                return Reply(journal=self._read(request))
            case CloseConnections():
                for connection in [c for c in self._connections if c.record.host == request.host]:
                    connection.finish()
        return Reply()

    def _read(self, request: ReadJournal) -> Journal:
        whole = self._journal
        whole.packets = self._tap.packets()
        part = select(whole, since_s=request.since_s, address=request.address, host=request.host)
        part.dropped += self._tap.dropped
        return part

    async def _add_host(self, host: AddHost) -> None:
        self._names.set_records(SetRecords(host.name, addresses=host.addresses, ttl_s=host.ttl_s))
        for address in host.addresses:
            for service in host.services:
                if service.kind is ServiceKind.DNS:
                    await self._names.serve(address, service.port)
                elif service.kind in _UDP_KINDS:
                    self._serve_datagrams(address, service)
                else:
                    await self._serve_stream(host.name, address, service)

    async def _serve_stream(self, host: str, address: str, service: Service) -> None:
        def register(connection: FarConnection, transport: asyncio.Transport) -> Connection:
            peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            record = Connection(
                number=len(self._journal.connections),
                opened_s=clock.monotonic_s(),
                source=peer[0],
                source_port=peer[1],
                address=local[0],
                port=local[1],
                host=host,
                service=service.kind.value,
            )
            if record.number < RECORDS_MAX:
                self._journal.connections.append(record)
            else:
                self._journal.dropped += 1
            self._connections.add(connection)
            return record

        def accept() -> FarConnection:
            tls = TlsLayer(self._certificates) if service.tls else None
            return FarConnection(register, self._connections.discard, SERVICES[service.kind], tls)

        listener = bound_socket(address, service.port, socket.SOCK_STREAM)
        await asyncio.get_running_loop().create_server(accept, sock=listener, backlog=BACKLOG)

    def _serve_datagrams(self, address: str, service: Service) -> None:
        listener = bound_socket(address, service.port, socket.SOCK_DGRAM)
        asyncio.get_running_loop().add_reader(listener, self._datagrams, listener, service)

    def _datagrams(self, listener: socket.socket, service: Service) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, peer = listener.recvfrom(65535)
                local = listener.getsockname()
                if len(self._journal.datagrams) < RECORDS_MAX:
                    entry = Datagram(clock.monotonic_s(), peer[0], local[0], local[1], len(data))
                    self._journal.datagrams.append(entry)
                else:
                    self._journal.dropped += 1
                if service.kind is ServiceKind.UDP_ECHO:
                    listener.sendto(data, peer)


async def _run_until_stdin_ends(control: Path, ca_file: Path, interface: str) -> None:
    machine = Machine(ca_file, interface)
    server = await machine.serve_control(control)
    print("ready", flush=True)  # noqa: T201 - the line its parent waits for
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    server.close()


def main() -> None:
    """Be the internet."""
    control, ca_file, interface = sys.argv[1:4]
    asyncio.run(_run_until_stdin_ends(Path(control), Path(ca_file), interface))


if __name__ == "__main__":
    main()
