"""Policies that only report: they let everything pass that a rule could open, and nothing else."""

from collections.abc import Iterator
from typing import Final

from attack.case import Group, case
from attack.paths import fire, run
from attack.scene import Ability, Rules, Scene
from attack.world import DENIED, METADATA, PRIVATE

_REPORTING: Final = Rules(only_reports=True)
_ALL: Final = ("tcp", "udp", "ping")
_NEEDS: Final = (Ability.OUTGATE,)


def what_reporting_lets_pass(scene: Scene) -> bool:
    """The twin: what no rule allows, in both families."""
    places = (DENIED.address4, DENIED.address6)
    run(scene, f"fire(targets((TCP, UDP, PING), {places}, (7,)), wait_s=5)", rules=_REPORTING)
    return {packet.address for packet in scene.journal().packets if packet.address in places} == set(places)


@case(Group.PATH, control=what_reporting_lets_pass, needs=_NEEDS)
def metadata_services_stay_closed_where_the_policy_only_reports(scene: Scene) -> Iterator[str]:
    """A trial mode that forgets the floor hands out the host's credentials while somebody tries it.

    Permissive modes are left on for weeks: SELinux's and AppArmor's are the best known ones.
    """
    known = (METADATA, "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fe80::a9fe:a9fe%eth0")
    yield from fire(scene, _ALL, known, (80, 443, 7), rules=_REPORTING)


@case(Group.PATH, control=what_reporting_lets_pass, needs=_NEEDS)
def private_networks_stay_closed_where_the_policy_only_reports(scene: Scene) -> Iterator[str]:
    """What a rule must name to open: a mode that opens "everything else" must not open the operator's own network."""
    inner = (PRIVATE, "172.16.9.9", "192.168.7.7", "100.64.1.1", "198.18.0.1", "fd12::1", "fec0::1", "2001:db8::1")
    yield from fire(scene, _ALL, inner, (80, 443, 853, 7), rules=_REPORTING)


@case(Group.PATH, control=what_reporting_lets_pass, needs=_NEEDS)
def addresses_inside_addresses_stay_closed_where_the_policy_only_reports(scene: Scene) -> Iterator[str]:
    """Private IPv4 addresses in IPv6 ones: a list of private networks that forgets the forms which carry them."""
    forms = ("64:ff9b::a63:a", "2002:a63:a::1", "::a63:a", "64:ff9b::7f00:1", "2001:0:2d2d:2d0a::1", "64:ff9b:1::a63:a")
    yield from fire(scene, _ALL, forms, (80, 443, 7), rules=_REPORTING)
    yield from scene.packets_to(PRIVATE, METADATA)
