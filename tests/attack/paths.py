"""What the cases about the path share: attempts by ordinary sockets, and their legitimate twins."""

import textwrap
from collections.abc import Container, Iterable, Iterator

from attack.forging import EVERYTHING, OPEN, RULES
from attack.scene import Rules, Scene
from attack.world import ALLOWED, DENIED

_ICMP = (1, 58)


def run(scene: Scene, program: str, *, rules: Rules = RULES) -> str:
    """Run ``program`` with everything of path_kit imported in the box under ``rules``; what it prints."""
    return scene.python("from path_kit import *\n" + textwrap.dedent(program), box=scene.box_under(rules))


def fire(
    scene: Scene,
    kinds: Iterable[str],
    addresses: Iterable[str],
    ports: Iterable[int],
    *,
    rules: Rules = RULES,
    wait_s: float = 1.0,
) -> Iterator[str]:
    """Every packet that reached one of ``addresses`` by any of ``kinds`` (tcp, udp, ping) and ``ports``."""
    kinds, addresses, ports = tuple(kinds), tuple(addresses), tuple(ports)
    run(scene, f"fire(targets({kinds}, {addresses}, {ports}), wait_s={wait_s})", rules=rules)
    yield from scene.packets_to(*(address.partition("%")[0] for address in addresses))


def protocols_to(scene: Scene, protocols: Container[int], *addresses: str) -> Iterator[str]:
    """Packets of one of ``protocols`` for one of ``addresses``, where others are allowed."""
    for packet in scene.journal().packets:
        if packet.protocol in protocols and packet.address in addresses:
            yield f"{packet.count} packets of protocol {packet.protocol} to {packet.address} port {packet.port}"


def what_rules_open(scene: Scene) -> bool:
    """The twin of what rules by address do not cover: what they do, TCP and UDP."""
    run(scene, f"fire([(TCP, '{OPEN}', 7), (UDP, '{OPEN}', 7)], wait_s=5)")
    journal = scene.journal()
    return any(c.address == OPEN and c.port == 7 and c.bytes_in for c in journal.connections) and any(
        d.address == OPEN and d.port == 7 for d in journal.datagrams
    )


def what_everything_opens(scene: Scene) -> bool:
    """The twin of what even a rule for everything does not cover: both families, TCP, UDP and echoes."""
    places = (DENIED.address4, DENIED.address6)
    run(scene, f"fire(targets((TCP, UDP, PING), {places}, (7,)), wait_s=5)", rules=EVERYTHING)
    seen = {(p.protocol in _ICMP, p.address) for p in scene.journal().packets if p.address in places}
    return seen == {(is_icmp, place) for is_icmp in (False, True) for place in places}


def an_allowed_name(scene: Scene) -> bool:
    """The twin of what goes past names: a whole handshake, both families."""
    run(scene, f"for address in lookup('{ALLOWED.name}'): tls(address, '{ALLOWED.name}')")
    reached = {c.address for c in scene.journal().connections if c.server_name == ALLOWED.name and c.requests}
    return reached == {ALLOWED.address4, ALLOWED.address6}
