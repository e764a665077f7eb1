"""Boxes whose rules change, for the cases about time: which rules there are, and the twins of what they try."""

from attack.motion import has_bytes, in_motion, keeps_going
from attack.scene import Box, CidrRule, Rules, Scene
from attack.world import ALLOWED, ALSO
from support.world import IN_NETWORK_B, NETWORK_A, NETWORK_B

_MOVING = "moving.example.org"
WIDE = Rules(names=(ALLOWED.name, ALSO.name))
NARROW = Rules(names=(ALSO.name,))
NOTHING = Rules(names=())
BOTH_NETWORKS = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A), CidrRule(NETWORK_B)))
ONE_NETWORK = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_B),))

ADDRESSES = (ALLOWED.address4, ALLOWED.address6)
REQUEST = f"b'GET / HTTP/1.1\\r\\nHost: {ALLOWED.name}\\r\\n\\r\\n'"


def box_of(scene: Scene, rules: Rules = WIDE) -> Box:
    """The box that all these cases share, under ``rules`` from now on."""
    box = scene.box_under(Rules(names=(_MOVING,)))
    box.apply(rules)
    return box


def a_kept_name_keeps_its_flow(scene: Scene) -> bool:
    """The twin of most cases: the same change leaves a flow alone whose name is still allowed."""
    box = box_of(scene)
    source = f"""
    lookup("{ALSO.name}")
    with socket.create_connection(("{ALSO.address4}", 80), 5) as flow:
        keep_asking(flow, TOKEN, {REQUEST.replace(ALLOWED.name, ALSO.name)})
    """
    with in_motion(scene, box, source) as motion:
        motion.await_far(has_bytes(ALSO.address4), "the kept flow")
        box.apply(NARROW)
        return keeps_going(scene, ALSO.address4)


def a_kept_network_keeps_its_flow(scene: Scene) -> bool:
    """The same for rules by address: one network goes, the flow into the other goes on."""
    box = box_of(scene, BOTH_NETWORKS)
    source = f"""
    with socket.create_connection(("{IN_NETWORK_B}", 7), 5) as flow:
        keep_asking(flow, TOKEN, b"still here\\n")
    """
    with in_motion(scene, box, source) as motion:
        motion.await_far(has_bytes(IN_NETWORK_B), "the kept flow")
        box.apply(ONE_NETWORK)
        return keeps_going(scene, IN_NETWORK_B)


def an_allowed_name_is_reached(scene: Scene) -> bool:
    """The twin of what comes after a change: the allowed host answers."""
    box = box_of(scene)
    scene.python(f"for address in lookup('{ALLOWED.name}'): tls(address, '{ALLOWED.name}')", box=box)
    reached = {c.address for c in scene.journal().connections if c.server_name == ALLOWED.name and c.requests}
    return reached == set(ADDRESSES)
