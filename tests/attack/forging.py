"""How cases put packets of their own making on a box's wire, and learn what became of them."""

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from attack.scene import Ability, Box, BrokenAttackError, CidrRule, Rules, Scene
from attack.systems.namespace_box import EnteredBox
from attack.witness import Witness, new_token, watching
from attack.world import ALLOWED
from support.world import IN_NETWORK_A, NETWORK_A

NEEDS = (Ability.RAW_SOCKETS, Ability.ADDRESS_RULES)
RULES = Rules(cidrs=(CidrRule(NETWORK_A, "TCP", (7, 8443)), CidrRule(NETWORK_A, "UDP", (7,))))
"""The usual names, and one network on a port or two."""
EVERYTHING = Rules(everything=True)
OPEN = IN_NETWORK_A
"""An address that :data:`RULES` open."""


def raw_box(scene: Scene, rules: Rules = RULES) -> Box:
    """The box with raw sockets under ``rules``."""
    return scene.box_under(rules, raw_sockets=True)


def ends(scene: Scene, rules: Rules = RULES) -> tuple[str, str]:
    """The addresses of that box, IPv4 and IPv6."""
    said = run_forged(scene, "print(wire.address4, wire.address6)", rules=rules)
    address4, address6 = said.split()
    return address4, address6


@contextmanager
def watching_box(scene: Scene, rules: Rules = RULES) -> Iterator[Witness]:
    """See what comes into that box while the body runs."""
    box = raw_box(scene, rules)
    if not isinstance(box, EnteredBox):
        raise BrokenAttackError("A box with raw sockets is one that is entered from outside.")
    namespace = os.open(f"/proc/{box.holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with watching(namespace) as witness:
            yield witness
    finally:
        os.close(namespace)


def run_forged(scene: Scene, program: str, *, rules: Rules = RULES, given: Mapping[str, object] | None = None) -> str:
    """Run ``program`` with everything of packets imported, ``wire`` open and what is ``given`` by name; what it prints."""
    values = "".join(f"{name} = {value!r}\n" for name, value in (given or {}).items())
    head = f"from packets import *\nwire = Wire()\n{values}"
    return scene.python(head + textwrap.dedent(program), box=raw_box(scene, rules))


def forge(
    scene: Scene,
    program: str,
    *,
    rules: Rules = RULES,
    given: Mapping[str, object] | None = None,
    to: Iterable[str] = (),
    also: Iterable[str | int] = (),
) -> Iterator[str]:
    """Each packet that carries ``TOKEN``, or is for one of ``to``, and reached the far side, or one of the namespaces
    ``also``, after ``program`` ran (see :func:`run_forged`).

    The last packet of the box is one that is allowed: when it has arrived, so has all that was before it.
    """
    token, fence = new_token(), new_token()
    with ExitStack() as stack:
        witnesses = [stack.enter_context(watching(place)) for place in (scene.internet.namespaces.internet, *also)]
        last = f"\nwire.datagram('{OPEN}', 7, b'{fence}')\n"
        values = {"TOKEN": token.encode(), **(given or {})}
        run_forged(scene, textwrap.dedent(program) + last, rules=rules, given=values)
        if not witnesses[0].await_token(fence):
            raise BrokenAttackError("The allowed datagram behind the attack did not arrive.")
        for witness in witnesses:
            yield from witness.told(token, to=to)


def a_datagram_by_hand(scene: Scene) -> bool:
    """The twin of what is not TCP: to an allowed address and port, right in every way."""
    return any(forge(scene, f"wire.datagram('{OPEN}', 7, TOKEN)"))


def a_syn_by_hand(scene: Scene) -> bool:
    """The twin of segments: the first one of a connection that a rule allows."""
    list(forge(scene, f"wire.segment('{OPEN}', 7, SYN)"))
    return any(
        packet.address == OPEN and packet.port == 7 and packet.protocol == 6 for packet in scene.journal().packets
    )


def a_connection_by_hand(scene: Scene) -> bool:
    """The twin of attacks on names: a whole hello for an allowed name, in two segments made by hand."""
    run_forged(
        scene,
        f"""
        resolve("{ALLOWED.name}")
        for address in ("{ALLOWED.address4}", "{ALLOWED.address6}"):
            flow = Taken(wire, address, 443)
            hello = client_hello("{ALLOWED.name}")
            flow.send(0, hello[:100])
            flow.send(100, hello[100:])
            flow.receive()
            flow.end(len(hello))
        """,
    )
    greeted = {c.address for c in scene.journal().connections if c.server_name == ALLOWED.name}
    return greeted == {ALLOWED.address4, ALLOWED.address6}
