"""What a relayed connection asks of the world.

Made by :mod:`outgate.wire.relay_flow`, carried out by whoever holds the sockets.
"""

from typing import Final

import msgspec

from outgate.model.flow import Handshake
from outgate.model.names import DomainName
from outgate.model.verdict import Deny
from outgate.wire.http1_page import RefusalStatus


class Judge(msgspec.Struct, frozen=True, gc=False):
    """Ask for a verdict on what the client said, and hand it to ``judged``."""

    handshake: Handshake


class Dial(msgspec.Struct, frozen=True, gc=False):
    """Connect to ``name``'s own addresses, or to the address that the box chose when ``name`` is None.

    A connection that is there already, or on its way, is dropped.
    """

    name: DomainName | None


class SendUpstream(msgspec.Struct, frozen=True, gc=False):
    """Send these bytes, in order."""

    data: bytes


class PassDown(msgspec.Struct, frozen=True, gc=False):
    """Let the server's bytes through to the client; the client's stay."""


class PassBoth(msgspec.Struct, frozen=True, gc=False):
    """From here on bytes go both ways unread, and so does the end of either side."""


class PassRequests(msgspec.Struct, frozen=True, gc=False):
    """From here on the client's bytes come by ``receive`` and the server's by ``responded``, save what is passable."""


class FinishUpstream(msgspec.Struct, frozen=True, gc=False):
    """The client says nothing more: pass that on when everything is sent."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """How a refused HTTP request is answered."""

    status: RefusalStatus
    host: DomainName | None
    with_body: bool


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """End it: drop the server's side by a reset; answer the client when ``answer`` is there, else reset it too."""

    deny: Deny
    answer: Answer | None


class Report(msgspec.Struct, frozen=True, gc=False):
    """Put on record why the flow would have been refused; it passes, because the policy only reports."""

    deny: Deny


class Abandon(msgspec.Struct, frozen=True, gc=False):
    """The client left before it said anything that could be judged: drop everything, nothing is to be reported."""


Command = Judge | Dial | SendUpstream | PassDown | PassBoth | PassRequests | FinishUpstream | Refuse | Report | Abandon
Commands = tuple[Command, ...]

PASS_DOWN: Final = PassDown()
PASS_BOTH: Final = PassBoth()
PASS_REQUESTS: Final = PassRequests()
FINISH_UPSTREAM: Final = FinishUpstream()
ABANDON: Final = Abandon()
DIAL_CHOSEN: Final = Dial(None)
