"""The little internet, as its users see it: make it, add hosts, ask its journal, take it away again."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from outgate import clock
from outgate.cli.demo.control import (
    WEB,
    AddHost,
    CloseConnections,
    ForeignRecord,
    Lie,
    ReadJournal,
    Reply,
    Request,
    Service,
    ServiceKind,
    SetRecords,
)
from outgate.cli.demo.journal import Journal
from outgate.cli.demo.namespaces import WIRE, InternetError, Namespaces, make_namespaces, remove_namespaces

RESOLVER4 = "45.45.45.53"
RESOLVER6 = "2a0f:4444::53"
END_S_MAX = 5.0
FOLDER_PREFIX = "outgate-internet-"


class Internet:
    """Two namespaces, one far-side process. A context manager: nothing of it is left afterwards.

    ``namespaces.host_path`` is where to start things that are to live on this internet; ``ca_file`` is the
    certificate of the authority which signed for every name on it; ``resolver`` answers DNS.
    """

    def __init__(self, *, ipv6: bool = True) -> None:
        """Make it, with a DNS server and nothing else. Raises InternetError or NamespaceError."""
        self.resolver = RESOLVER4
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid():x}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.ca_file = folder / "ca.pem"
            self.namespaces: Namespaces = make_namespaces(ipv6=ipv6)
            stack.callback(remove_namespaces, self.namespaces)
            self._control = _start_machine(self.namespaces.internet_path, folder / "control.sock", self.ca_file, stack)
            self._replies = stack.enter_context(self._control.makefile("rb"))
            self._undo = stack.pop_all()
        self.add_host("resolver.internet", addresses=(RESOLVER4, RESOLVER6), services=(Service(ServiceKind.DNS, 53),))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self.close()

    def close(self) -> None:
        """End the far side and remove the namespaces. May be called twice."""
        self._undo.close()

    def add_host(
        self, name: str, *, addresses: Sequence[str], services: Sequence[Service] = WEB, ttl_s: int = 60
    ) -> None:
        """A machine called ``name`` on ``addresses`` (both families; any address will do), offering ``services``."""
        self._ask(AddHost(name, tuple(addresses), tuple(services), ttl_s))

    def set_records(
        self,
        name: str,
        *,
        addresses: Sequence[str] = (),
        cname: str | None = None,
        raw: Sequence[tuple[int, str]] = (),
        ttl_s: int = 60,
        foreign: Sequence[ForeignRecord] = (),
        delay_s: float = 0.0,
    ) -> None:
        """What ``name`` (or ``*.name``) resolves to from now on; without any records it does not exist.

        Each answer comes ``delay_s`` late (by UDP) and takes the ``foreign`` records along.
        """
        records = SetRecords(name, tuple(addresses), cname, tuple(raw), ttl_s, foreign=tuple(foreign), delay_s=delay_s)
        self._ask(records)

    def set_forged(self, name: str, *, addresses: Sequence[str], lies: Sequence[Lie], lie_address: str) -> None:
        """``name`` resolves to ``addresses``, but before each answer by UDP come ``lies`` that say ``lie_address``."""
        self._ask(SetRecords(name, tuple(addresses), lies=tuple(lies), lie_address=lie_address))

    def journal(self, *, since_s: float = 0.0, address: str | None = None, host: str | None = None) -> Journal:
        """What has reached the far side since ``since_s`` (:meth:`now_s`), for ``address`` and ``host`` where given."""
        journal = self._ask(ReadJournal(since_s, address, host)).journal
        return Journal() if journal is None else journal

    def close_connections(self, host: str) -> None:
        """The far side ends every connection that ``host`` has open."""
        self._ask(CloseConnections(host))

    @staticmethod
    def now_s() -> float:
        """The time in the journal's terms."""
        return clock.monotonic_s()

    def command(self, *arguments: str) -> list[str]:
        """The command that runs ``arguments`` in the host namespace."""
        return ["nsenter", f"--net={self.namespaces.host_path}", *arguments]

    def _ask(self, request: Request) -> Reply:
        self._control.sendall(msgspec.json.encode(request) + b"\n")
        line = self._replies.readline()
        if not line:
            raise InternetError("The little internet's process is gone.")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error:
            raise InternetError(f"The little internet refused: {reply.error}.")
        return reply


def _start_machine(namespace: Path, control: Path, ca_file: Path, stack: contextlib.ExitStack) -> socket.socket:
    """Start the far-side process in ``namespace``; a connection to its control socket."""
    module = "outgate.cli.demo.machine"
    command = ["nsenter", f"--net={namespace}", sys.executable, "-m", module, str(control), str(ca_file), WIRE]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(_end, process)
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise InternetError("The little internet's process did not start; its error is above.")
    connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    connection.connect(str(control))
    return connection


def _end(process: subprocess.Popen[str]) -> None:
    """The end of its input is the end of the process; what does not listen is killed."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(timeout=END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
