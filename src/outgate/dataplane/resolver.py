"""Resolved names for whoever in the gate needs them: the DNS gate's answers and the relay's targets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses of a name, both families, as the upstream resolvers gave them.

    They are NOT checked against the floor: who dials one asks ``core.decide.decide_answer`` first.
    ``ttl_s`` is how long they may be kept (5 s to 1 h). ``failure`` says in a few words why there is no address;
    it is None whenever there is one.
    """

    addresses: tuple[IPAddress, ...]
    ttl_s: int
    failure: str | None = None


class Resolver(Protocol):
    """Resolves names; never blocks."""

    def resolve(self, name: DomainName, callback: Callable[[Resolution], None]) -> None:
        """Call ``callback`` once with the addresses of ``name``: at once when they are cached, else within 5 s."""
        ...
