"""What an adapter is, and which there are."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from attack.scene import Ability, Running
from attack.systems import dnsmasq, outgate, squid
from attack.systems import open as unfiltered
from outgate.cli.demo.internet import Internet


class System(Protocol):
    """A module of ``attack.systems``. Its docstring says what was set up and how, for whoever reads the scoreboard."""

    NAME: str
    ABILITIES: frozenset[Ability]
    opened: Callable[[], AbstractContextManager[tuple[Running, Internet]]]
    """The system, started on an internet of its own."""
    version: Callable[[], str]
    """What is compared, with its version."""
    __doc__: str | None


SYSTEMS: dict[str, System] = {system.NAME: system for system in (unfiltered, squid, dnsmasq, outgate)}
