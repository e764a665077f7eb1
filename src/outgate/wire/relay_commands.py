"""What a relayed connection asks of the world.

Made by :mod:`outgate.wire.relay_flow`, carried out by whoever holds the sockets.
"""

from dataclasses import dataclass
from typing import Final

from outgate.model.flow import Handshake
from outgate.model.names import DomainName
from outgate.model.verdict import Deny
from outgate.wire.http1_page import RefusalStatus


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask for a verdict on what the client said, and hand it to ``judged``."""

    handshake: Handshake


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to ``name``'s own addresses, or to the address that the box chose when ``name`` is None.

    A connection that is there already, or on its way, is dropped.
    """

    name: DomainName | None


@dataclass(frozen=True, slots=True)
class SendUpstream:
    """Send these bytes, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PassDown:
    """Let the server's bytes through to the client; the client's stay."""


@dataclass(frozen=True, slots=True)
class PassBoth:
    """From here on bytes go both ways unread, and so does the end of either side."""


@dataclass(frozen=True, slots=True)
class PassRequests:
    """From here on the client's bytes come by ``receive`` and the server's by ``responded``, save what is passable."""


@dataclass(frozen=True, slots=True)
class FinishUpstream:
    """The client says nothing more: pass that on when everything is sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a refused HTTP request is answered."""

    status: RefusalStatus
    host: DomainName | None
    with_body: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """End it: drop the server's side by a reset; answer the client when ``answer`` is there, else reset it too."""

    deny: Deny
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Abandon:
    """The client left before it said anything that could be judged: drop everything, nothing is to be reported."""


Command = Judge | Dial | SendUpstream | PassDown | PassBoth | PassRequests | FinishUpstream | Refuse | Abandon
Commands = tuple[Command, ...]

PASS_DOWN: Final = PassDown()
PASS_BOTH: Final = PassBoth()
PASS_REQUESTS: Final = PassRequests()
FINISH_UPSTREAM: Final = FinishUpstream()
ABANDON: Final = Abandon()
DIAL_CHOSEN: Final = Dial(None)
