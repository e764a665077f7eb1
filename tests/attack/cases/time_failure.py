"""What decides goes away, or comes back, while a box tries."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from runloop_api_client import APIError

from attack.case import Group, case
from attack.motion import await_far, has_bytes, keeps_going, left_running
from attack.moving import WIDE, an_allowed_name_is_reached, box_of
from attack.scene import Ability, Box, BrokenAttackError, Scene
from attack.world import ALLOWED, ALSO, DENIED, DENIED_ZONE, IN_NO_NETWORK
from support.server_processes import Part, find_process

BACK_S_MAX = 30.0
_TRIES = f"""
import threading
for name in ("{ALLOWED.name}", "{ALSO.name}"):
    lookup(name)
def repeat(attempt):
    while going(TOKEN):
        attempt()
attempts = [
    lambda: http("{ALSO.address4}", "{ALSO.name}"),
    lambda: tls("{DENIED.address4}", "{DENIED.name}", wait_s=0.5),
    lambda: tls("{DENIED.address6}", "{ALLOWED.name}", wait_s=0.5),
    lambda: tls("{ALLOWED.address4}", "{DENIED.name}", wait_s=0.5),
    lambda: http("{ALLOWED.address4}", "{DENIED.name}"),
    lambda: exchange("{IN_NO_NETWORK}", 7, b"here\\n", wait_s=0.5),
    lambda: udp("{DENIED.address4}", 7, wait_s=0.1),
    lambda: ask_all([dns_query("secret.{DENIED_ZONE}"), dns_query("{DENIED.name}")], wait_s=0.1),
    lambda: (lookup("{ALSO.name}"), time.sleep(0.1)),
]
threads = [threading.Thread(target=repeat, args=(attempt,)) for attempt in attempts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@contextmanager
def _trying(scene: Scene) -> Iterator[Box]:
    """A box that tries what is denied, over and over, and what is allowed as a sign of life."""
    box = box_of(scene)
    with left_running(scene, box, _TRIES):
        await_far(scene, has_bytes(ALSO.address4, 80, count=3), "the attempts")
        yield box


def _got_through(scene: Scene) -> Iterator[str]:
    yield from scene.packets_to(DENIED.address4, DENIED.address6, IN_NO_NETWORK)
    yield from scene.requests_naming(DENIED.name)
    yield from scene.queries_for(DENIED.name)
    yield from scene.queries_for(DENIED_ZONE)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.RESTART,))
def a_restart_of_everything_opens_nothing(scene: Scene) -> Iterator[str]:
    """Fail open: filters that flush their rules when they end, or set them up after the network, leave a gap for attempts.

    firewalld, Docker and half of all gateways have had their moment between flush and reload.
    """
    with _trying(scene):
        scene.running.restart()
        if not keeps_going(scene, ALSO.address4):
            yield "what is allowed did not come back"
    yield from _got_through(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def killing_any_of_its_processes_opens_nothing(scene: Scene) -> Iterator[str]:
    """A crash that opens: the kernel goes on without the process that judged, and passes what nobody takes any more."""
    stage = scene.running.stage
    with _trying(scene) as box:
        for part in Part:
            os.kill(find_process(stage.daemon, part), signal.SIGKILL)
            if not keeps_going(scene, ALSO.address4):
                yield f"what is allowed did not come back after the end of {part.name}"
        _await_answers(scene, box)
    yield from _got_through(scene)


def _await_answers(scene: Scene, box: Box) -> None:
    """Until the API takes updates again."""
    deadline_s = scene.internet.now_s() + BACK_S_MAX
    while True:
        try:
            box.apply(WIDE)
        except APIError as error:
            if scene.internet.now_s() > deadline_s:
                raise BrokenAttackError("The API did not come back.") from error
        else:
            return
