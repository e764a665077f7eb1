"""Decisions as they come, through every restart of the server: none twice, none left out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from outgate.client.public import JsonObject, OutgateClient
from outgate.client.transport import PeerRefusedError, PeerUnreachableError

WAITS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Before each try to reach a server that is away; the last again and again."""
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500


@dataclass(frozen=True, slots=True)
class Following:
    """Who hears of the connection, and how to wait.

    ``on_lost`` is told why the server is away, once; ``on_open`` is called whenever it answers (again).
    """

    on_lost: Callable[[str], None]
    on_open: Callable[[], None]
    sleep: Callable[[float], None]


def follow_through_restarts(
    client: OutgateClient, after: int, filters: Mapping[str, str], following: Following
) -> Iterator[JsonObject]:
    """Decisions after number ``after``, oldest first, without end; goes on after the last one it gave.

    Raises PeerRefusedError for a refusal that waiting does not mend, such as a revoked key.
    """
    failures = 0

    def opened() -> None:
        nonlocal failures
        failures = 0
        following.on_open()

    while True:
        why = ""
        try:
            for flow in client.follow_flows(after, on_open=opened, **filters):
                after = flow["number"]
                yield flow
        except PeerUnreachableError as error:
            why = error.message
        except PeerRefusedError as error:
            if error.status != _TOO_MANY and error.status < _SERVER_ERRORS:
                raise
            why = error.message
        # A stream that just ended is one that the server ends in good order, after an hour or when it stops.
        if why and failures == 0:
            following.on_lost(why)
        following.sleep(WAITS_S[min(failures, len(WAITS_S) - 1)])
        failures += 1 if why else 0
