"""A router that filters nothing: an attack that does not get through here is none.

Rules are taken and change nothing, and nothing that decides can be killed: an attack on a change or on a crash gets
through as if the change had not come. What it cannot be asked is what only Outgate has.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attack.scene import Ability, Rules, Running
from attack.systems.namespace_box import Link, NamespaceSystem, opened_internet
from outgate.cli.demo.internet import Internet

NAME = "open"
ABILITIES = frozenset(Ability) - {Ability.OUTGATE}


@contextmanager
def opened() -> Iterator[tuple[Running, Internet]]:
    """The system, on an internet of its own."""
    with opened_internet() as internet, NamespaceSystem(internet, OpenGateway(internet.resolver)) as system:
        yield system, internet


def version() -> str:
    """What forwards."""
    return f"a router without a filter (Linux {platform.release().partition('-')[0]})"


@dataclass(frozen=True, slots=True)
class OpenGateway:
    """See :class:`attack.systems.namespace_box.Gateway`."""

    internet_resolver: str

    def apply(self, link: Link, rules: Rules) -> None:
        """Nothing is ever in force."""

    def resolver(self, link: Link) -> str:  # noqa: ARG002 - the same for all
        """The internet's own."""
        return self.internet_resolver

    def restart(self) -> None:
        """There is nothing to kill."""
