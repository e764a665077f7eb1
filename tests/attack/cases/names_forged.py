"""Names that are not those of the address, and addresses that are not those of the name."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.scene import Ability, Rules, Scene
from attack.world import ALLOWED, ALSO, DENIED, SHARED_ALLOWED, SHARED_DENIED


def tls_to_an_allowed_host(scene: Scene) -> bool:
    """The twin of most attacks here."""
    scene.python(f"""
        for address in lookup("{ALLOWED.name}"):
            tls(address, "{ALLOWED.name}", wait_s=20)
        """)
    reached = {c.address for c in scene.journal().connections if c.server_name == ALLOWED.name and c.requests}
    return reached == {ALLOWED.address4, ALLOWED.address6}


def both_ways_to_an_allowed_name_of_a_shared_address(scene: Scene) -> bool:
    """TLS and plain HTTP that name the allowed one of the address's tenants."""
    scene.python(f"""
        for address in lookup("{SHARED_ALLOWED.name}"):
            tls(address, "{SHARED_ALLOWED.name}", wait_s=20)
            http(address, "{SHARED_ALLOWED.name}")
        """)
    reached = [(c.address, c.port) for c in scene.journal().connections if c.requests]
    addresses = (SHARED_ALLOWED.address4, SHARED_ALLOWED.address6)
    return sorted(reached) == sorted((address, port) for address in addresses for port in (80, 443))


@case(Group.NAMES, control=tls_to_an_allowed_host)
def a_forged_server_name_does_not_open_another_hosts_address(scene: Scene) -> Iterator[str]:
    """Trust in the SNI alone: the box dials a denied address and names an allowed host in its handshake.

    The classic hole of SNI proxies and SNI firewalls ("SNI spoofing"): whoever forwards to the address that was dialled
    because of a name that the client chose has allowed every address of the internet.
    """
    scene.python(f"""
        for address in ("{DENIED.address4}", "{DENIED.address6}"):
            tls(address, "{ALLOWED.name}", host="{DENIED.name}")
        """)
    yield from scene.packets_to(DENIED.address4, DENIED.address6)


@case(Group.NAMES, control=tls_to_an_allowed_host)
def a_forged_host_does_not_open_another_hosts_address(scene: Scene) -> Iterator[str]:
    """The same with the Host of plain HTTP, which interception proxies believed (Squid, CVE-2009-0801)."""
    scene.python(f"""
        for address in ("{DENIED.address4}", "{DENIED.address6}"):
            http(address, "{ALLOWED.name}")
            http(address, "{ALLOWED.name}", port=8080)
        """)
    yield from scene.packets_to(DENIED.address4, DENIED.address6)


@case(Group.NAMES, control=tls_to_an_allowed_host)
def a_forged_name_of_another_allowed_host_reaches_only_the_host_it_names(scene: Scene) -> Iterator[str]:
    """Both are allowed, each by itself: what was said in the name of one must not be heard by the other.

    A log that says one name while another host has the bytes is how a leak goes unseen.
    """
    scene.python(f"""
        lookup("{ALSO.name}")
        lookup("{ALLOWED.name}")
        for address in ("{ALSO.address4}", "{ALSO.address6}"):
            tls(address, "{ALLOWED.name}")
            http(address, "{ALLOWED.name}")
        """)
    yield from scene.bytes_to(ALSO.address4, ALSO.address6)


@case(Group.NAMES, control=both_ways_to_an_allowed_name_of_a_shared_address)
def a_neighbour_on_the_same_address_is_not_reached_by_its_server_name(scene: Scene) -> Iterator[str]:
    """A CDN or a shared host: one address, many names. Rules that DNS turned into addresses open all of them.

    The known weakness of DNS-based address sets (dnsmasq's ``nftset``, ``ipset``) and of every FQDN policy by address.
    """
    scene.python(f"""
        lookup("{SHARED_ALLOWED.name}")
        for address in ("{SHARED_ALLOWED.address4}", "{SHARED_ALLOWED.address6}"):
            for port in (443, 8443):
                tls(address, "{SHARED_DENIED.name}", port=port)
        """)
    yield from scene.requests_naming(SHARED_DENIED.name)
    yield from scene.bytes_to(SHARED_ALLOWED.address4, SHARED_ALLOWED.address6)


@case(Group.NAMES, control=both_ways_to_an_allowed_name_of_a_shared_address)
def a_neighbour_on_the_same_address_is_not_reached_by_its_host(scene: Scene) -> Iterator[str]:
    """The same by plain HTTP, on its own port and on others: rules that DNS turned into addresses read no Host."""
    scene.python(f"""
        lookup("{SHARED_ALLOWED.name}")
        for address in ("{SHARED_ALLOWED.address4}", "{SHARED_ALLOWED.address6}"):
            for port in (80, 8080):
                http(address, "{SHARED_DENIED.name}", port=port)
        """)
    yield from scene.requests_naming(SHARED_DENIED.name)
    yield from scene.bytes_to(SHARED_ALLOWED.address4, SHARED_ALLOWED.address6)


@case(Group.NAMES, control=both_ways_to_an_allowed_name_of_a_shared_address)
def a_session_of_an_allowed_name_is_not_resumed_under_another(scene: Scene) -> Iterator[str]:
    """Resumption: the ticket proves the first handshake, and a filter that knows the session waves the second through.

    Servers that share ticket keys among their names were confused the same way (Delignat-Lavaud and Bhargavan, "Network-based
    origin confusion attacks against HTTPS virtual hosting", WWW 2015).
    """
    scene.python(f"""
        lookup("{SHARED_ALLOWED.name}")
        for address in ("{SHARED_ALLOWED.address4}", "{SHARED_ALLOWED.address6}"):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = unchecked_tls()
                context.maximum_version = version
                session = None
                for name in ("{SHARED_ALLOWED.name}", "{SHARED_DENIED.name}"):
                    with refused(), socket.create_connection((address, 443), 3) as plain:
                        with context.wrap_socket(plain, server_hostname=name, session=session) as flow:
                            flow.sendall(b"GET / HTTP/1.1\\r\\nHost: " + name.encode() + b"\\r\\n\\r\\n")
                            flow.recv(4096)
                            session = flow.session
        """)
    yield from scene.requests_naming(SHARED_DENIED.name)


@case(Group.NAMES, control=both_ways_to_an_allowed_name_of_a_shared_address)
def the_target_of_an_alias_is_not_allowed_by_its_own_name(scene: Scene) -> Iterator[str]:
    """An allowed name is a CNAME for a denied one: what DNS said on the way is not what the operator allowed.

    Filters that learn every owner name in an answer let the zone's owner write their rules.
    """
    alias = scene.fresh_name()
    scene.internet.set_records(alias, cname=SHARED_DENIED.name)
    scene.python(f"""
        for address in lookup("{alias}"):
            tls(address, "{SHARED_DENIED.name}")
            http(address, "{SHARED_DENIED.name}")
        lookup("{SHARED_DENIED.name}")
        """)
    yield from scene.requests_naming(SHARED_DENIED.name)
    yield from scene.queries_for(SHARED_DENIED.name)


RAW_TO_ALLOWED = f"""
    for address in ("{ALLOWED.address4}", "{ALLOWED.address6}"):
        exchange(address, 7, b"hello\\n")
        exchange(address, 22, b"")
    """


def raw_bytes_to_an_allowed_host(scene: Scene) -> bool:
    """A protocol without names, after a lookup."""
    scene.python(f'lookup("{ALLOWED.name}")\n{RAW_TO_ALLOWED}'.replace("\n    ", "\n"))
    return {c.port for c in scene.journal().connections if c.address == ALLOWED.address4} == {7, 22}


@case(Group.NAMES, control=raw_bytes_to_an_allowed_host, needs={Ability.TWO_BOXES})
def an_address_that_another_box_looked_up_is_not_open_to_this_one(scene: Scene) -> Iterator[str]:
    """One address set for all clients: whatever anybody resolved is open to everybody.

    And an address that is known beforehand, used without any lookup, is nobody's name at all.
    """
    other = scene.box_under(Rules(names=(ALLOWED.name, ALSO.name)), fresh=True)
    scene.python(f'lookup("{ALLOWED.name}")')
    scene.begin()
    scene.python(RAW_TO_ALLOWED, box=other)
    yield from scene.packets_to(ALLOWED.address4, ALLOWED.address6)


@case(Group.NAMES, control=tls_to_an_allowed_host, needs={Ability.UPDATE})
def an_address_learnt_under_older_rules_is_not_open_under_newer_ones(scene: Scene) -> Iterator[str]:
    """What was learnt outlives the rule by which it was learnt: caches and address sets that nobody clears.

    Tried raw, by the name that is no longer allowed, and by the name that is.
    """
    box = scene.box_under(Rules(names=(ALLOWED.name,)), fresh=True)
    scene.python(f'lookup("{ALLOWED.name}")', box=box)
    box.apply(Rules(names=(ALSO.name,)))
    scene.begin()
    attack = f"""
        for address in ("{ALLOWED.address4}", "{ALLOWED.address6}"):
            exchange(address, 7, b"hello\\n")
            for name in ("{ALLOWED.name}", "{ALSO.name}"):
                tls(address, name)
                http(address, name)
        """
    scene.python(attack, box=box)
    yield from scene.packets_to(ALLOWED.address4, ALLOWED.address6)
