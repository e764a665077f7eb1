"""Answers that are not what was asked for, or not from whom."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.lab import LAB, an_allowed_name_is_reached, name_of, run
from attack.scene import Ability, Rules, Scene
from attack.world import ALLOWED, ALSO, APEX, BELOW, DENIED
from outgate.cli.demo.control import ForeignRecord, Lie, Section

A, NS, TYPE_HTTPS, TYPE_SVCB = 1, 2, 65, 64


def _hex(address: str) -> str:
    return bytes(map(int, address.split("."))).hex()


@case(Group.DNS, control=an_allowed_name_is_reached)
def records_that_nobody_asked_for_are_not_believed(scene: Scene) -> Iterator[str]:
    """Poison by the zone's owner: its answers bring along addresses for other names, in every section.

    Kashpureff did it in 1997; CVE-2021-25220 and MaginotDNS (USENIX Security 2023) show that forwarders still believe it.
    """
    owners = (ALSO.name, DENIED.name)
    poison = [ForeignRecord(section, owner, A, _hex(DENIED.address4)) for section in Section for owner in owners]
    poison += [ForeignRecord(Section.AUTHORITY, LAB, NS, "0365766c0b6578616d706c65036e657400")]
    name = scene.fresh_name(LAB)
    scene.internet.set_records(name, addresses=(BELOW.address4, BELOW.address6), foreign=poison)
    bare = scene.fresh_name(LAB)
    scene.internet.set_records(bare, foreign=poison, raw=((16, "0161"),))
    run(
        scene,
        f"""
        for name in ("{name}", "{bare}"):
            for type_ in (1, 28):
                ask(dns_query(name, type_))
        for name in {owners}:
            for address in {{*lookup(name), "{DENIED.address4}"}}:
                tls(address, name, wait_s=1)
        """,
    )
    yield from scene.packets_to(DENIED.address4)


@case(Group.DNS, control=an_allowed_name_is_reached)
def forged_answers_from_off_the_path_are_not_taken(scene: Scene) -> Iterator[str]:
    """Spoofing in the manner of Kaminsky (CVE-2008-1447) and DNSpooq (CVE-2020-25684 to 25686).

    Each forgery has everything right but one thing: the id, the question, the answer bit, the port, the server. All of
    them arrive before the true answer.
    """
    names = []
    for lie in Lie:
        names.append(scene.fresh_name(LAB))
        scene.internet.set_forged(names[-1], addresses=(BELOW.address4,), lies=(lie,), lie_address=DENIED.address4)
    told = run(
        scene,
        f"""
        for name in {names}:
            print(name, *lookup(name))
            for address in {{*lookup(name), "{DENIED.address4}"}}:
                tls(address, name, wait_s=1)
        """,
    )
    yield from scene.packets_to(DENIED.address4)
    yield from (line for line in told.splitlines() if DENIED.address4 in line)


@case(Group.DNS, control=an_allowed_name_is_reached)
def hints_and_keys_in_service_records_do_not_arrive(scene: Scene) -> Iterator[str]:
    """HTTPS and SVCB records (RFC 9460): address hints that no filter checked, and keys that encrypt the server name.

    With an ECH configuration from DNS, a browser hides the very name by which the flow would be judged.
    """
    name = name_of(scene)
    hint = "0004" + "0004" + _hex(DENIED.address4)
    ech = "0005" + "0010" + b"ech-config-bytes".hex()
    service = "0001" + "00" + hint + ech
    records = ((TYPE_HTTPS, service), (TYPE_SVCB, service))
    scene.internet.set_records(name, addresses=(BELOW.address4,), raw=records)
    told = run(
        scene,
        f"""
        found = b""
        for type_ in ({TYPE_HTTPS}, {TYPE_SVCB}):
            for kind, data in answers(ask(dns_query("{name}", type_))):
                found += data
        if {bytes.fromhex(_hex(DENIED.address4))!r} in found:
            tls("{DENIED.address4}", "{name}", wait_s=1)
        if b"ech-config-bytes" in found:
            print("the keys")
        """,
    )
    yield from scene.packets_to(DENIED.address4)
    yield from told.splitlines()


@case(Group.DNS, control=an_allowed_name_is_reached, needs=(Ability.TWO_BOXES,))
def what_one_box_looked_up_opens_nothing_for_another(scene: Scene) -> Iterator[str]:
    """Shared state: one box may reach a name, the other not; a cache or an address set that both share lets it in.

    A set of addresses per gateway instead of per box is what dnsmasq's nftset and ipset options make by themselves.
    """
    other = scene.box_under(Rules(names=(ALSO.name,)))
    name = name_of(scene, APEX.address4, APEX.address6)
    told = run(scene, f"print(*lookup('{name}'))").split()
    run(scene, f"for address in {told}: tls(address, '{name}')")
    scene.begin()
    found = run(
        scene,
        f"""
        print(*lookup("{name}"))
        for address in {told}:
            for server_name in ("{name}", "{ALSO.name}", "{DENIED.name}"):
                tls(address, server_name, wait_s=1)
                http(address, server_name)
        """,
        box=other,
    )
    yield from (f"the other box was told {address}" for address in found.split())
    # ALSO is allowed there, and reached at its own address only.
    yield from scene.bytes_to(APEX.address4, APEX.address6)


@case(Group.DNS, control=an_allowed_name_is_reached)
def an_answer_without_addresses_opens_nothing(scene: Scene) -> Iterator[str]:
    """Empty and missing names: what does not resolve must not fall through to a default, to the last answer or to any host."""
    empty, missing = scene.fresh_name(LAB), scene.fresh_name(LAB)
    scene.internet.set_records(empty, raw=((16, "0161"),))
    run(
        scene,
        f"""
        lookup("{ALLOWED.name}")
        for name in ("{empty}", "{missing}"):
            for address in (*lookup(name), "{DENIED.address4}", "{DENIED.address6}"):
                tls(address, name, wait_s=1)
                http(address, name)
        """,
    )
    yield from scene.packets_to(DENIED.address4, DENIED.address6)
