"""What a case is given: a box under some rules, the internet it attacks, and questions about what arrived there."""

import secrets
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from attack.world import ALLOWED, ALSO, SHARED_ALLOWED, TAPE, WILD
from outgate.cli.demo.internet import Internet
from outgate.cli.demo.journal import Connection, Journal

if TYPE_CHECKING:
    from support.stage import Stage

SETTLE_S = 0.1
"""What a process between box and far side still had in hand has arrived by then; packets in the kernel already have."""
PROGRAM_S_MAX = 60.0


class Who(StrEnum):
    """As whom a program runs in the box."""

    ROOT = "root"
    USER = "user"


class Ability(StrEnum):
    """What a case asks of a system beyond running programs under "allow these names"."""

    ADDRESS_RULES = "rules by address, protocol and port"
    EVERYTHING = "a rule that allows everything"
    UPDATE = "rules that change while a box runs"
    RESTART = "processes that can be killed and started again"
    TWO_BOXES = "two boxes at once"
    RAW_SOCKETS = "a box with raw sockets, given on purpose"
    OUTGATE = "Outgate's own API and processes"


class BrokenAttackError(Exception):
    """A program of the corpus failed by itself, so that it proves nothing."""


@dataclass(frozen=True, slots=True)
class CidrRule:
    """``protocol`` (``TCP``, ``UDP`` or None for all) to ``ports`` (all when empty) of ``cidr``."""

    cidr: str
    protocol: str | None = None
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a box may reach; nothing else, unless it ``only_reports`` (Outgate alone can)."""

    names: tuple[str, ...] = (ALLOWED.name, ALSO.name, SHARED_ALLOWED.name, TAPE.name, f"*.{WILD}")
    cidrs: tuple[CidrRule, ...] = ()
    everything: bool = False
    only_reports: bool = False


DEFAULT_RULES = Rules()


class Box(Protocol):
    """A place where programs run under rules."""

    def python(self, source: str, *, seconds_max: float) -> str:
        """Run ``source`` with ``toolkit`` importable; its standard output.

        Raises :class:`BrokenAttackError` with what it wrote when it exits with anything but 0.
        """
        ...

    def apply(self, rules: Rules) -> None:
        """Other rules from now on (:attr:`Ability.UPDATE`)."""
        ...


class Running(Protocol):
    """A system that has been started on an internet."""

    def box(self, rules: Rules, who: Who, *, fresh: bool = False, raw_sockets: bool = False) -> Box:
        """A box under ``rules`` whose programs run as ``who``: one that exists already, unless it is to be ``fresh``."""
        ...

    def restart(self) -> None:
        """Kill what decides, all of it, and start it again (:attr:`Ability.RESTART`)."""
        ...

    @property
    def stage(self) -> "Stage":
        """Outgate's own API and processes (:attr:`Ability.OUTGATE`)."""
        ...


@dataclass(slots=True)
class Scene:
    """One attempt of one case. Everything asked of the far side is about what came since the attempt began."""

    running: Running
    internet: Internet
    who: Who
    since_s: float = field(default_factory=Internet.now_s)

    @property
    def box(self) -> Box:
        """The box under the default rules, shared with other cases."""
        return self.box_under(DEFAULT_RULES)

    def box_under(self, rules: Rules, *, fresh: bool = False, raw_sockets: bool = False) -> Box:
        """A box under ``rules``, shared with other cases unless ``fresh``."""
        return self.running.box(rules, self.who, fresh=fresh, raw_sockets=raw_sockets)

    def python(self, source: str, *, box: Box | None = None, seconds_max: float = PROGRAM_S_MAX) -> str:
        """Run ``source`` (any indentation) in ``box``, or in the shared one, with everything of toolkit imported."""
        program = "from toolkit import *\n" + textwrap.dedent(source)
        return (box or self.box).python(program, seconds_max=seconds_max)

    def begin(self) -> None:
        """What came until now is not counted: call it after preparations that reach the far side."""
        self.since_s = self.internet.now_s()

    def fresh_name(self, parent: str = WILD) -> str:
        """A name below ``parent`` that nobody has used, for cases that need a record of their own."""
        return f"x{secrets.token_hex(5)}.{parent}"

    def journal(self) -> Journal:
        """Everything that has arrived since the attempt began."""
        time.sleep(SETTLE_S)
        return self.internet.journal(since_s=self.since_s)

    def packets_to(self, *addresses: str, port: int | None = None) -> Iterator[str]:
        """Any packet, connection or datagram for one of ``addresses``: the strictest question."""
        wanted = {str(ip_address(address)) for address in addresses}
        journal = self.journal()
        for packet in journal.packets:
            if packet.address in wanted and port in (None, packet.port):
                yield f"{packet.count} packets of protocol {packet.protocol} to {packet.address} port {packet.port}"
        for connection in journal.connections:
            if connection.address in wanted and port in (None, connection.port):
                yield _told(connection)
        for datagram in journal.datagrams:
            if datagram.address in wanted and port in (None, datagram.port):
                yield f"a datagram of {datagram.size} bytes to {datagram.address} port {datagram.port}"

    def bytes_to(self, *addresses: str, port: int | None = None) -> Iterator[str]:
        """Connections on which the far side got bytes of the box: for hosts that may be dialled before the decision."""
        wanted = {str(ip_address(address)) for address in addresses}
        for connection in self.journal().connections:
            if connection.bytes_in and connection.address in wanted and port in (None, connection.port):
                yield _told(connection)

    def requests_naming(self, name: str) -> Iterator[str]:
        """HTTP requests that any far-side server read with ``name`` as Host, and handshakes with it as SNI."""
        for connection in self.journal().connections:
            if connection.server_name == name:
                yield _told(connection)
            for request in connection.requests:
                if f"http://{name}/" in f"{request.lower()}/" or f"http://{name}:" in request.lower():
                    yield f"{request} at {connection.address}"

    def queries_for(self, name: str) -> Iterator[str]:
        """DNS questions about ``name`` or anything below it that reached a server."""
        for query in self.journal().queries:
            if query.name == name or query.name.endswith("." + name):
                yield f"a question of type {query.type} for {query.name} at {query.server}"

    def dns_messages_with(self, data: bytes) -> Iterator[str]:
        """DNS messages of any kind that reached a server with ``data`` in them, its letters in any case."""
        for query in self.journal().queries:
            if data.lower() in query.message.lower():
                yield f"{query.message!r} by {query.transport} at {query.server}"

    def as_user(self, who: Who) -> "Scene":
        """The same for another user."""
        return replace(self, who=who)


def _told(connection: Connection) -> str:
    return (
        f"a connection to {connection.host} ({connection.address} port {connection.port})"
        f" with {connection.bytes_in} bytes, SNI {connection.server_name!r}, requests {connection.requests}"
    )
