"""Answers that lead an allowed name to where no name may lead."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from attack.case import Group, case
from attack.lab import LAB, an_allowed_name_is_reached, name_of, run
from attack.scene import Ability, Rules, Scene
from attack.world import ALLOWED, BELOW, DENIED, METADATA, PRIVATE
from outgate.cli.demo.namespaces import HOST_ADDRESS4, HOST_ADDRESS6

INNER = (PRIVATE, "172.16.9.9", "192.168.7.7", "100.64.1.1", "198.18.0.1", "192.0.2.9", "fd12::1", "2001:db8::1")
METADATA_ADDRESSES = (METADATA, "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
DISGUISED = {
    f"::ffff:{PRIVATE}": PRIVATE,
    f"::ffff:{METADATA}": METADATA,
    "::10.99.0.10": "::10.99.0.10",
    "64:ff9b::a9fe:a9fe": "64:ff9b::a9fe:a9fe",
    "64:ff9b::a63:a": "64:ff9b::a63:a",
    "64:ff9b:1::a9fe:a9fe": "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1": "2002:a9fe:a9fe::1",
    "2001:0:2d2d:2d0a::1": "2001:0:2d2d:2d0a::1",
}
"""Addresses of IPv6 that hold one of IPv4, and where a packet for each goes."""

_TRY = """
for name, address in {pairs}:
    for candidate in sorted({{*lookup(name), address}}):
        http(candidate, name)
        tls(candidate, name, wait_s=1)
"""


def _tried(scene: Scene, *addresses: str) -> None:
    """A new allowed name for each of ``addresses``: looked up, and connected to by name and by address."""
    pairs = [(name_of(scene, address), address) for address in addresses]
    run(scene, _TRY.format(pairs=pairs))


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_allowed_name_does_not_lead_to_private_addresses(scene: Scene) -> Iterator[str]:
    """DNS rebinding (Jackson et al., CCS 2007): the zone's owner answers with an address of the inner network.

    The name is allowed, so a filter by names opens whatever it resolves to: routers, printers, databases.
    """
    _tried(scene, *INNER)
    yield from scene.packets_to(*INNER)


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_allowed_name_does_not_lead_to_metadata_services(scene: Scene) -> Iterator[str]:
    """Rebinding to where clouds hand out credentials to whoever can connect: AWS, ECS, Alibaba, Azure, all families."""
    _tried(scene, *METADATA_ADDRESSES)
    yield from scene.packets_to(*METADATA_ADDRESSES)


@case(Group.DNS, control=an_allowed_name_is_reached)
def addresses_inside_addresses_are_looked_through(scene: Scene) -> Iterator[str]:
    """Mapped, compatible, NAT64 (as DNS64 answers), 6to4 and Teredo forms of denied addresses.

    Filters that compare text or families pass them, and the kernel or the next gateway takes the disguise off.
    """
    _tried(scene, *DISGUISED)
    yield from scene.packets_to(*DISGUISED.values())


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_allowed_name_does_not_lead_to_the_host(scene: Scene) -> Iterator[str]:
    """Rebinding to the machine that runs the box: its services trust its own network."""
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server((address, 0), family=family))
            for address, family in ((HOST_ADDRESS4, socket.AF_INET), (HOST_ADDRESS6, socket.AF_INET6))
        ]
        places = [listener.getsockname()[:2] for listener in listeners]
        names = [name_of(scene, address) for address, _ in places]
        run(
            scene,
            f"""
            for name, (address, port) in zip({names}, {places}):
                for candidate in sorted({{*lookup(name), address}}):
                    with refused():
                        socket.create_connection((candidate, port), 1).close()
            """,
        )
        yield from _accepted(listeners)


def _accepted(listeners: Sequence[socket.socket]) -> Iterator[str]:
    for listener in listeners:
        listener.setblocking(False)
        try:
            accepted, peer = listener.accept()
        except BlockingIOError:
            continue
        accepted.close()
        yield f"the host's listener at {listener.getsockname()[0]} was reached by {peer[0]}"


_NEIGHBOUR_RULES = Rules(names=("neighbour.example.com",))
_LISTEN = """
listener = socket.create_server(("", 0))
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(("45.45.45.10", 9))
print(probe.getsockname()[0], listener.getsockname()[1], flush=True)
open("/tmp/visitors", "w").close()
daemonise()
listener.settimeout(20)
with refused():
    while True:
        visitor = listener.accept()[1][0]
        with open("/tmp/visitors", "a") as log:
            log.write(visitor + "\\n")
"""


def a_listening_box_is_heard_by_itself(scene: Scene) -> bool:
    """The twin of reaching a neighbour: what it left listening answers, its own programs at least."""
    other = scene.box_under(_NEIGHBOUR_RULES)
    address, port = run(scene, _LISTEN, box=other).split()
    return address in _visitors(scene, f"socket.create_connection(('{address}', {port}), 5)")


def _visitors(scene: Scene, source: str = "") -> list[str]:
    """Who connected to the listening box, after it has run ``source`` itself; waits for somebody a moment."""
    wait = "for _ in range(20):\n    if open('/tmp/visitors').read(): break\n    time.sleep(0.02)\n"
    told = run(scene, f"{source}\n{wait}print(open('/tmp/visitors').read())", box=scene.box_under(_NEIGHBOUR_RULES))
    return told.split()


@case(Group.DNS, control=a_listening_box_is_heard_by_itself, needs=(Ability.TWO_BOXES,))
def an_allowed_name_does_not_lead_to_another_box(scene: Scene) -> Iterator[str]:
    """Rebinding to a neighbour: boxes of other users, with whatever listens in them."""
    address, port = run(scene, _LISTEN, box=scene.box_under(_NEIGHBOUR_RULES)).split()
    name = name_of(scene, address)
    run(
        scene,
        f"""
        for candidate in sorted({{*lookup("{name}"), "{address}"}}):
            with refused():
                socket.create_connection((candidate, {port}), 1).close()
            http(candidate, "{name}")
        """,
    )
    yield from (f"{visitor} connected to the neighbour at {address}" for visitor in _visitors(scene))


@case(Group.DNS, control=an_allowed_name_is_reached)
def one_good_address_does_not_bring_in_a_bad_one(scene: Scene) -> Iterator[str]:
    """Mixed answers: a public address for the check and an inner one for the connection, as multi-record rebinding has it."""
    names = [
        name_of(scene, *order) for order in ((BELOW.address4, PRIVATE, METADATA), (METADATA, PRIVATE, BELOW.address4))
    ]
    many = name_of(scene, *(f"45.45.48.{number}" for number in range(1, 120)), PRIVATE)
    run(scene, _TRY.format(pairs=[(name, PRIVATE) for name in names] + [(names[0], METADATA)]))
    run(
        scene,
        f"""
        if "{PRIVATE}" in lookup("{many}") or not lookup("{many}"):
            http("{PRIVATE}", "{many}")
        """,
    )
    yield from scene.packets_to(PRIVATE, METADATA)


@case(Group.DNS, control=an_allowed_name_is_reached)
def a_name_that_changes_after_its_lookup_gains_nothing(scene: Scene) -> Iterator[str]:
    """Time of check, time of use: public at the lookup, inner at the connection, TTL 0 so that nobody keeps the first.

    Proxies resolve a second time when they dial (CVE-2022-4096 and many like it): the second answer is what must be judged.
    """
    names = [name_of(scene) for _ in range(2)]
    scene.internet.set_records(names[0], addresses=(BELOW.address4,), ttl_s=0)
    scene.internet.set_records(names[1], addresses=(BELOW.address4,), ttl_s=2**31 - 1)
    run(scene, f"for name in {names}: lookup(name)")
    for name in names:
        scene.internet.set_records(name, addresses=(PRIVATE,), ttl_s=0)
    late = name_of(scene, PRIVATE)
    run(
        scene,
        f"""
        for name in {names}:
            for address in ("{BELOW.address4}", "{PRIVATE}"):
                http(address, name)
                tls(address, name, wait_s=1)
        # Never looked up by the box: whoever reads the name has to resolve it.
        for address in lookup("{ALLOWED.name}"):
            http(address, "{late}")
            tls(address, "{late}", wait_s=1)
        http("{PRIVATE}", "{late}")
        """,
    )
    yield from scene.packets_to(PRIVATE)


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_alias_does_not_open_its_targets_own_name(scene: Scene) -> Iterator[str]:
    """A CNAME of an allowed name to a denied one: the zone's owner could allow whatever it likes by naming it.

    The alias leads to that address under its own name; the target's name stays what it was.
    """
    alias = scene.fresh_name(LAB)
    scene.internet.set_records(alias, cname=DENIED.name)
    run(
        scene,
        f"""
        for address in lookup("{alias}") or ["{DENIED.address4}"]:
            tls(address, "{DENIED.name}", wait_s=1)
            http(address, "{DENIED.name}")
        for address in lookup("{DENIED.name}"):
            tls(address, "{DENIED.name}", wait_s=1)
        """,
    )
    yield from scene.requests_naming(DENIED.name)
    yield from scene.queries_for(DENIED.name)


@case(Group.DNS, control=an_allowed_name_is_reached)
def a_chain_of_aliases_does_not_hide_where_it_ends(scene: Scene) -> Iterator[str]:
    """CNAMEs over CNAMEs, ending at inner addresses, in a circle, or at nothing: only the first name is checked by many."""
    first, second, third, circle = (scene.fresh_name(LAB) for _ in range(4))
    for owner, target in ((first, second), (second, third), (third, "inner.example.net"), (circle, circle)):
        scene.internet.set_records(owner, cname=target)
    scene.internet.set_records("inner.example.net", addresses=(PRIVATE, "fd12::1"))
    run(scene, _TRY.format(pairs=[(first, PRIVATE), (third, "fd12::1")]))
    run(
        scene, f"ask_all([dns_query('{circle}'), dns_query('{circle}', 28)], wait_s=0.2); http('{PRIVATE}', '{circle}')"
    )
    yield from scene.packets_to(PRIVATE, "fd12::1")
    if not an_allowed_name_is_reached(scene):
        yield "the resolver answers nobody any more"
