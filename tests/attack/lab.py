"""Where the cases about DNS live: a box with a wildcard of its own, and the legitimate twins of what they try.

The wildcard's zone is the attacker's: its owner reads every question, and answers what it likes.
"""

import re
import textwrap

from attack.scene import Box, Rules, Scene
from attack.world import ALLOWED, ALSO, BELOW

LAB = "lab.example.com"
LAB_RULES = Rules(names=(ALLOWED.name, ALSO.name, f"*.{LAB}"))


def box_of(scene: Scene) -> Box:
    """The box that all cases about DNS share."""
    return scene.box_under(LAB_RULES)


def run(scene: Scene, source: str, *, box: Box | None = None) -> str:
    """Run ``source`` in ``box``, or in the one of the lab, with ``dns_kit`` imported too; its output."""
    return scene.python(
        "from dns_kit import *\nfrom motion_kit import *\n" + textwrap.dedent(source), box=box or box_of(scene)
    )


def name_of(scene: Scene, *addresses: str) -> str:
    """A name below the wildcard that nobody has asked for, with these addresses (or those of a far-side host)."""
    name = scene.fresh_name(LAB)
    scene.internet.set_records(name, addresses=addresses or (BELOW.address4, BELOW.address6))
    return name


def token_of(name: str) -> bytes:
    """What is to be found in a message that speaks of ``name``, made by ``scene.fresh_name``."""
    found = re.match("x[0-9a-f]{10}", name)
    if found is None:
        raise ValueError(f"{name} has no token.")
    return found[0].encode()


def an_allowed_lookup_is_answered(scene: Scene) -> bool:
    """The twin of a tunnel: a name that is allowed, asked for the first time."""
    name = name_of(scene)
    told = run(scene, f"print(*lookup('{name}'))").split()
    return told == sorted((BELOW.address4, BELOW.address6)) and any(scene.queries_for(name))


def an_allowed_name_is_reached(scene: Scene) -> bool:
    """The twin of rebinding and poisoning: a new name, looked up and connected to, over both families."""
    name = name_of(scene)
    run(scene, f"for address in lookup('{name}'): tls(address, '{name}')")
    reached = {c.address for c in scene.journal().connections if c.server_name == name and c.requests}
    return reached == {BELOW.address4, BELOW.address6}
