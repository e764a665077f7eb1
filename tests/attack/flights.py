"""Bytes that a case sends as they are, each flight on a connection of its own."""

import zlib
from collections.abc import Mapping, Sequence

from attack.scene import Scene
from attack.world import TAPE, Host

Flight = bytes | Sequence[bytes]
"""What is sent on one connection, in one segment or in several."""

ATTACK_S_MAX = 1.0
"""Time for an attack's answer: whoever refuses does so at once, and a silent drop must not cost more."""
CONTROL_S_MAX = 20.0
"""Time for the answer to what is allowed: it comes, on a busy machine late."""


def send(
    scene: Scene,
    flights: Sequence[Flight],
    *ports: int,
    host: Host = TAPE,
    is_answered: bool = False,
    wait_s: float = ATTACK_S_MAX,
) -> None:
    """Send every flight to each of ``ports`` at both addresses of ``host``, after its name has been looked up.

    With ``is_answered`` each piece waits for an answer to the one before.
    """
    send_by_port(scene, dict.fromkeys(ports, flights), host=host, is_answered=is_answered, wait_s=wait_s)


def send_by_port(
    scene: Scene,
    flights: Mapping[int, Sequence[Flight]],
    *,
    host: Host = TAPE,
    is_answered: bool = False,
    wait_s: float = ATTACK_S_MAX,
) -> None:
    """The same with other flights for each port."""
    pieces = [
        (port, [flight] if isinstance(flight, bytes) else list(flight))
        for port, those in flights.items()
        for flight in those
    ]
    packed = zlib.compress(repr(pieces).encode("ascii"))
    scene.python(f"""
        import ast, zlib
        flights = ast.literal_eval(zlib.decompress({packed!r}).decode())
        lookup("{host.name}")
        for address in ("{host.address4}", "{host.address6}"):
            for port, pieces in flights:
                converse(address, port, pieces, {wait_s}, is_answered={is_answered})
        """)
