"""What goes on in a box while its rules change, and what of it reaches the far side afterwards."""

import secrets
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from attack.scene import SETTLE_S, Box, BrokenAttackError, Scene
from outgate.cli.demo.journal import Journal

GOES_ON_S = 0.2
"""How long the box may go on trying; each of its programs tries dozens of times in it."""
BEGUN_S_MAX = 30.0
_LOOK_EVERY_S = 0.02
_IMPORTS = "from dns_kit import *\nfrom motion_kit import *\n"


@dataclass(frozen=True, slots=True)
class Motion:
    """A program that is running in ``box``; in it, ``TOKEN`` is what ``motion_kit`` wants to know."""

    scene: Scene
    box: Box
    token: str
    running: Future[str]

    def await_far(self, has_begun: Callable[[Journal], object], what: str) -> None:
        """Wait until the far side shows that the program got as far as it should.

        Raises BrokenAttackError when it does not: then there is nothing to be stopped.
        """
        deadline_s = time.monotonic() + BEGUN_S_MAX
        while not has_begun(self.scene.internet.journal(since_s=self.scene.since_s)):
            if self.running.done() or time.monotonic() > deadline_s:
                said = self.running.result() if self.running.done() else "it is still running"
                raise BrokenAttackError(f"{what} did not come about: {said}")
            time.sleep(_LOOK_EVERY_S)

    def go(self) -> None:
        """Let the program go on behind its ``await_go(TOKEN)``."""
        self._touch("go")

    def finish(self) -> str:
        """Stop the program; what it wrote."""
        self._touch("stop")
        return self.running.result()

    def _touch(self, what: str) -> None:
        self.scene.python(f"open('/tmp/{what}-{self.token}', 'w').close()", box=self.box)


@contextmanager
def in_motion(scene: Scene, box: Box, source: str) -> Iterator[Motion]:
    """Run ``source`` in ``box`` meanwhile; it is stopped when the block is left."""
    token = secrets.token_hex(4)
    program = f"{_IMPORTS}TOKEN = '{token}'\n" + textwrap.dedent(source)
    with ThreadPoolExecutor(1) as pool:
        motion = Motion(scene, box, token, pool.submit(scene.python, program, box=box))
        try:
            yield motion
        finally:
            motion.finish()


@contextmanager
def left_running(scene: Scene, box: Box, source: str) -> Iterator[None]:
    """Leave ``source`` running in ``box`` as a daemon, which ends when the block is left.

    The box must be able to run programs by then; in between nobody speaks to it.
    """
    token = secrets.token_hex(4)
    scene.python(f"{_IMPORTS}TOKEN = '{token}'\ndaemonise()\n{textwrap.dedent(source)}", box=box)
    try:
        yield
    finally:
        scene.python(f"open('/tmp/stop-{token}', 'w').close()", box=box)


def await_far(scene: Scene, has_begun: Callable[[Journal], object], what: str) -> None:
    """As :meth:`Motion.await_far`, for what is left running."""
    deadline_s = time.monotonic() + BEGUN_S_MAX
    while not has_begun(scene.internet.journal(since_s=scene.since_s)):
        if time.monotonic() > deadline_s:
            raise BrokenAttackError(f"{what} did not come about")
        time.sleep(_LOOK_EVERY_S)


Counts = Mapping[str, int]


def arrived(scene: Scene, *addresses: str) -> Counts:
    """How much of each kind has reached ``addresses`` since the attempt began: bytes, connections, packets."""
    # Each answer of the far side means that it went once through everything that waited for it.
    scene.internet.journal(since_s=scene.since_s)
    journal = scene.internet.journal(since_s=scene.since_s)
    wanted = {str(ip_address(address)) for address in addresses}
    counts: Counter[str] = Counter()
    for connection in journal.connections:
        if connection.address in wanted:
            counts[f"bytes on connection {connection.number} to {connection.address} port {connection.port}"] += (
                connection.bytes_in
            )
            counts[f"connections to {connection.address} port {connection.port}"] += 1
    for packet in journal.packets:
        if packet.address in wanted:
            counts[f"packets of protocol {packet.protocol} to {packet.address} port {packet.port}"] += packet.count
    return counts


def more(before: Counts, after: Counts) -> Iterator[str]:
    """What was added, in words."""
    for what, count in after.items():
        if count > before.get(what, 0):
            yield f"{count - before.get(what, 0)} more {what}"


def goes_on(scene: Scene, *addresses: str, motion: Motion | None = None) -> Iterator[str]:
    """What reaches ``addresses`` from now on, while the box tries; ``motion`` is told to go on now.

    To be asked once an update has been answered.
    """
    time.sleep(SETTLE_S)
    before = arrived(scene, *addresses)
    if motion is not None:
        motion.go()
    time.sleep(GOES_ON_S)
    yield from more(before, arrived(scene, *addresses))


def keeps_going(scene: Scene, address: str) -> bool:
    """Whether more reaches ``address`` from now on; waits for it."""
    before = arrived(scene, address)
    deadline_s = time.monotonic() + BEGUN_S_MAX
    while not any(more(before, arrived(scene, address))):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def has_bytes(address: str, port: int | None = None, *, count: int = 1) -> Callable[[Journal], bool]:
    """Whether ``count`` connections to ``address`` have brought bytes there."""
    return lambda journal: (
        len([c for c in journal.connections if c.address == address and port in (None, c.port) and c.bytes_in]) >= count
    )
