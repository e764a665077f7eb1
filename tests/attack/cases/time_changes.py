"""What a change of rules must take along besides open flows: lookups, pins, networks, attempts and processes."""

from collections.abc import Iterator
from textwrap import dedent

from attack.case import Group, case
from attack.motion import await_far, goes_on, has_bytes, in_motion, left_running
from attack.moving import (
    ADDRESSES,
    BOTH_NETWORKS,
    NARROW,
    NOTHING,
    ONE_NETWORK,
    REQUEST,
    a_kept_name_keeps_its_flow,
    a_kept_network_keeps_its_flow,
    an_allowed_name_is_reached,
    box_of,
)
from attack.scene import Ability, CidrRule, Rules, Scene
from attack.world import ALLOWED, ALSO, BELOW, DENIED
from support.world import IN_NETWORK_A, IN_NETWORK_B, NETWORK_A

NAME, ADDRESS = ALLOWED.name, ALLOWED.address4
TRY_ALL = f"""
def try_all():
    for address in {{*lookup("{NAME}"), *{ADDRESSES}}}:
        for attempt in (lambda: http(address, "{NAME}"), lambda: tls(address, "{NAME}", wait_s=1),
                        lambda: exchange(address, 7, b"here\\n", wait_s=1)):
            attempt()
"""


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.UPDATE,))
def addresses_of_a_removed_name_are_closed(scene: Scene) -> Iterator[str]:
    """What DNS had taught outlives the rule that it was taught by: sets of addresses with the TTL of the answer.

    dnsmasq's nftset never takes an address out, and FQDN policies wait for its TTL.
    """
    box = box_of(scene)
    scene.python(f"for address in lookup('{NAME}'): tls(address, '{NAME}')", box=box)
    box.apply(NARROW)
    scene.begin()
    scene.python(f"{TRY_ALL}\ntry_all()", box=box)
    yield from scene.packets_to(*ADDRESSES)
    yield from scene.queries_for(NAME)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.UPDATE,))
def an_empty_list_allows_nothing(scene: Scene) -> Iterator[str]:
    """Empty means everything: the list that is missing, empty or all removed is where allow lists turn into none.

    iptables rules without a match, Kubernetes policies with an empty ``to``, proxies with an ACL file that is not there.
    """
    box = box_of(scene)
    scene.python(f"lookup('{NAME}')", box=box)
    box.apply(NOTHING)
    scene.begin()
    scene.python(
        f"""{TRY_ALL}
try_all()
lookup("{DENIED.name}")
for address in ("{DENIED.address4}", "{ALSO.address4}", "{IN_NETWORK_A}"):
    tls(address, "{ALSO.name}", wait_s=1)
""",
        box=box,
    )
    yield from scene.packets_to(*ADDRESSES, DENIED.address4, ALSO.address4, IN_NETWORK_A)
    yield from (f"a question for {query.name}" for query in scene.journal().queries)


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_lookup_that_is_under_way_teaches_nothing_afterwards(scene: Scene) -> Iterator[str]:
    """Asked under the old rules, answered under the new: by the box's resolver, and by whoever resolves a handshake's name."""
    zone = "slow.example.com"
    box = box_of(scene, Rules(names=(ALSO.name, NAME, f"*.{zone}")))
    asked, shaken = scene.fresh_name(zone), scene.fresh_name(zone)
    for name in (asked, shaken):
        scene.internet.set_records(name, addresses=(BELOW.address4, BELOW.address6), delay_s=1.0)
    source = f"""
    lookup("{NAME}")
    held = socket.create_connection(("{ADDRESS}", 443), 5)
    held.sendall(client_hello("{shaken}"))
    found = lookup("{asked}")
    await_go(TOKEN)
    for address in {{*found, "{BELOW.address4}", "{BELOW.address6}"}}:
        for name in ("{asked}", "{shaken}"):
            tls(address, name, wait_s=1)
    """
    with in_motion(scene, box, source) as motion:
        motion.await_far(lambda journal: asked in {query.name for query in journal.queries}, "the lookup")
        box.apply(NARROW)
        motion.go()
        motion.finish()
    yield from scene.bytes_to(BELOW.address4, BELOW.address6)


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def attempts_in_a_tight_loop_find_no_gap(scene: Scene) -> Iterator[str]:
    """A race for the moment of the change: whoever replaces rules in two steps is open, or wrong, between them."""
    box = box_of(scene)
    source = f"""
    import threading
    lookup("{NAME}")
    def attempt(port, data):
        while going(TOKEN, 0.002):
            exchange("{ADDRESS}", port, data, wait_s=0.5)
    jobs = [(80, {REQUEST}), (443, client_hello("{NAME}")), (7, b"here\\n")]
    threads = [threading.Thread(target=attempt, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    with in_motion(scene, box, source) as motion:
        motion.await_far(has_bytes(ADDRESS, 80, count=5), "the attempts")
        box.apply(NARROW)
        yield from goes_on(scene, *ADDRESSES)


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def a_storm_of_changes_lets_nothing_through_that_none_allows(scene: Scene) -> Iterator[str]:
    """Many updates at once: two rule sets that both deny a host, changing places, must not add up to one that allows it."""
    box = box_of(scene)
    source = f"""
    import threading
    def attempt(address, name):
        while going(TOKEN, 0.002):
            lookup("{DENIED.name}")
            tls(address, name, wait_s=0.5)
    jobs = [("{DENIED.address4}", "{NAME}"), ("{DENIED.address6}", "{ALSO.name}"), ("{ADDRESS}", "{DENIED.name}"),
            ("{ALSO.address4}", "{ALSO.name}")]
    threads = [threading.Thread(target=attempt, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    with in_motion(scene, box, f"lookup('{NAME}')\nlookup('{ALSO.name}')\n{dedent(source)}") as motion:
        motion.await_far(has_bytes(ALSO.address4), "the attempts")
        for _ in range(15):
            box.apply(Rules(names=(NAME,), cidrs=()))
            box.apply(NARROW)
    yield from scene.packets_to(DENIED.address4, DENIED.address6)
    yield from scene.requests_naming(DENIED.name)
    yield from scene.queries_for(DENIED.name)


@case(Group.TIME, control=a_kept_name_keeps_its_flow, needs=(Ability.UPDATE,))
def processes_that_were_left_running_obey_as_well(scene: Scene) -> Iterator[str]:
    """Daemons: forked twice, in sessions of their own, older than the rules; whoever tags processes loses sight of them."""
    box = box_of(scene)
    source = f"""
    lookup("{NAME}")
    while going(TOKEN):
        http("{ADDRESS}", "{NAME}")
        exchange("{ADDRESS}", 7, b"here\\n", wait_s=0.5)
    """
    with left_running(scene, box, source):
        await_far(scene, has_bytes(ADDRESS, 80, count=3), "the daemon's attempts")
        box.apply(NARROW)
        yield from goes_on(scene, *ADDRESSES)


_ADDRESS_UPDATE = (Ability.UPDATE, Ability.ADDRESS_RULES)


def _network_flows(scene: Scene, wide: Rules, narrow: Rules, places: list[tuple[str, str, int]]) -> Iterator[str]:
    """Flows to ``places`` (kind, address, port), all of which ``narrow`` denies."""
    box = box_of(scene, wide)
    source = f"""
    import threading
    def hold(kind, address, port):
        number = socket.IPPROTO_ICMP if kind == "icmp" else 0
        data = b"\\x08" + bytes(7) if kind == "icmp" else b"still here\\n"
        kind = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        with refused(), socket.socket(socket.AF_INET, kind, number) as flow:
            flow.connect((address, port))
            keep_asking(flow, TOKEN, data)
    threads = [threading.Thread(target=hold, args=place) for place in {places}]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    with in_motion(scene, box, source) as motion:
        motion.await_far(
            lambda journal: all(
                journal.reached(address, port if kind != "icmp" else None) for kind, address, port in places
            ),
            "the flows",
        )
        box.apply(narrow)
        yield from goes_on(scene, *(address for _, address, _ in places))


@case(Group.TIME, control=a_kept_network_keeps_its_flow, needs=_ADDRESS_UPDATE)
def flows_into_a_removed_network_end(scene: Scene) -> Iterator[str]:
    """Rules by address, in the kernel: ``ct state established accept`` in front of them is the standard advice everywhere."""
    yield from _network_flows(
        scene,
        BOTH_NETWORKS,
        ONE_NETWORK,
        [("tcp", IN_NETWORK_A, 7), ("udp", IN_NETWORK_A, 7), ("icmp", IN_NETWORK_A, 0)],
    )


@case(Group.TIME, control=a_kept_network_keeps_its_flow, needs=_ADDRESS_UPDATE)
def flows_to_a_removed_port_end(scene: Scene) -> Iterator[str]:
    """The network stays, one of its ports goes: coarser bookkeeping than the rule keeps the flow alive."""
    wide = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A, "TCP", (7, 8080)), CidrRule(NETWORK_A, "UDP", (7,))))
    narrow = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A, "TCP", (8080,)), CidrRule(NETWORK_A, "UDP", (443,))))
    yield from _network_flows(scene, wide, narrow, [("tcp", IN_NETWORK_A, 7), ("udp", IN_NETWORK_A, 7)])


@case(Group.TIME, control=a_kept_network_keeps_its_flow, needs=_ADDRESS_UPDATE)
def flows_outside_a_network_that_shrank_end(scene: Scene) -> Iterator[str]:
    """A prefix grows longer: what lies in the old one and not in the new one is as closed as any other address."""
    wide = Rules(names=(ALSO.name,), cidrs=(CidrRule("45.45.46.0/24"),))
    narrow = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A),))
    yield from _network_flows(scene, wide, narrow, [("tcp", IN_NETWORK_B, 7), ("udp", IN_NETWORK_B, 7)])


@case(Group.TIME, control=a_kept_network_keeps_its_flow, needs=_ADDRESS_UPDATE)
def a_protocol_that_lost_its_rule_does_not_ride_on_anothers(scene: Scene) -> Iterator[str]:
    """All protocols become one: UDP and ICMP to the same address and port must not live on by the rule for TCP."""
    wide = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A),))
    narrow = Rules(names=(ALSO.name,), cidrs=(CidrRule(NETWORK_A, "TCP", (7,)),))
    yield from _network_flows(scene, wide, narrow, [("udp", IN_NETWORK_A, 7), ("icmp", IN_NETWORK_A, 0)])
