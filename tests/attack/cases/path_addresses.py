"""Addresses that are special: nothing goes there because nobody has said that it must not."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import EVERYTHING
from attack.paths import fire, protocols_to, run, what_everything_opens, what_rules_open
from attack.scene import Ability, Scene
from attack.world import ALLOWED, DENIED, IN_NO_NETWORK, METADATA, PRIVATE

_ALL = ("tcp", "udp", "ping")
_WEB = (80, 443)
_BY_ADDRESS = (Ability.ADDRESS_RULES,)
_EVERYTHING = (Ability.ADDRESS_RULES, Ability.EVERYTHING)


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def ipv6_is_not_open_where_only_ipv4_has_rules(scene: Scene) -> Iterator[str]:
    """Rules that were written for IPv4, on a host that has IPv6 as well: the other family is the way round.

    The commonest hole of home-made filters: iptables without ip6tables; VPN clients leaked this way (Perta et al.,
    "A Glance through the VPN Looking Glass", PETS 2015).
    """
    yield from fire(scene, _ALL, (DENIED.address6, "2a0f:4444:9::9", "2606:4700::1111"), (7, 22, 80, 443, 8443))


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def private_networks_are_not_open_under_other_rules(scene: Scene) -> Iterator[str]:
    """The operator's own network: RFC 1918, shared address space, unique local and what is reserved.

    "Deny the internet" that leaves 10.0.0.0/8 open reaches databases, printers and the router's console.
    """
    inner = (PRIVATE, "172.16.9.9", "192.168.7.7", "100.64.1.1", "198.18.0.1", "fd12::1", "fec0::1")
    yield from fire(scene, _ALL, inner, _WEB)


@case(Group.PATH, control=what_everything_opens, needs=_EVERYTHING)
def metadata_services_stay_closed_when_everything_is_open(scene: Scene) -> Iterator[str]:
    """Where clouds hand out credentials to whoever can connect, in each family and each cloud.

    The Capital One breach (2019) was a request to 169.254.169.254; fd00:ec2::254 is the same service over IPv6.
    """
    known = (METADATA, "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192")
    known6 = ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fe80::a9fe:a9fe%eth0")
    yield from fire(scene, _ALL, (*known, *known6), (*_WEB, 7), rules=EVERYTHING)


@case(Group.PATH, control=what_everything_opens, needs=_EVERYTHING)
def addresses_inside_addresses_stay_closed_when_everything_is_open(scene: Scene) -> Iterator[str]:
    """IPv4 addresses in IPv6 ones: mapped, compatible, NAT64, 6to4, Teredo. Somebody on the way unwraps them.

    Filters against server-side request forgery that compare text, or one family, are passed with ``[::ffff:a9fe:a9fe]``.
    """
    forms = ("::ffff:a9fe:a9fe", "::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1")
    loops = ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:2d2d:2d0a::1", "::7f00:1")
    yield from fire(scene, _ALL, (*forms, *loops), _WEB, rules=EVERYTHING)
    # A mapped address is the IPv4 address inside to a socket: its packet is one of IPv4.
    yield from scene.packets_to(METADATA)


@case(Group.PATH, control=what_everything_opens, needs=_EVERYTHING)
def groups_and_neighbours_stay_closed_when_everything_is_open(scene: Scene) -> Iterator[str]:
    """Multicast, broadcast, link-local: mDNS, SSDP, DHCP and whatever else believes its neighbours."""
    groups = ("224.0.0.1", "224.0.0.251", "239.255.255.250", "232.1.1.1", "255.255.255.255", "169.254.7.7")
    groups6 = ("ff02::1%eth0", "ff02::fb%eth0", "ff05::1:3%eth0", "ff0e::1%eth0", "fe80::1234%eth0")
    yield from fire(scene, ("udp", "ping", "tcp"), (*groups, *groups6), (67, 547, 1900, 5353, 443), rules=EVERYTHING)


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def a_host_beside_the_allowed_network_is_not_reached(scene: Scene) -> Iterator[str]:
    """One address outside of each end of a network that a rule opens, and the same bits elsewhere.

    Off-by-one and prefix mistakes: interval sets and text prefixes ("45.45.46." allows 45.45.46.200 of a /25).
    """
    outside = (
        "45.45.45.255",
        "45.45.46.128",
        "45.45.46.129",
        "45.45.47.0",
        IN_NO_NETWORK,
        "45.45.46.255",
        "46.45.45.1",
    )
    yield from fire(scene, _ALL, outside, (7, 8443))


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def an_address_that_nobody_named_is_not_reached(scene: Scene) -> Iterator[str]:
    """Straight to addresses, without a name: public resolvers, denied hosts, allowed hosts' neighbours, on every kind
    of port. Proxy settings and DNS filters alone stop only those who ask.
    """
    strangers = (DENIED.address4, IN_NO_NETWORK, "8.8.8.8", "1.1.1.1", "45.45.45.12", "240.0.0.1", "192.0.2.1")
    yield from fire(scene, _ALL, strangers, (1, 7, 22, 25, 80, 123, 443, 3128, 8080, 8443, 51820, 65535))


@case(Group.PATH, control=what_rules_open, needs=_BY_ADDRESS)
def an_allowed_name_opens_no_other_protocol_at_its_address(scene: Scene) -> Iterator[str]:
    """UDP and echoes to the address of an allowed name: WireGuard, QUIC, STUN, ping tunnels.

    Sets that DNS fills hold addresses alone; a rule that forgets the protocol opens all of them.
    """
    run(scene, f"lookup('{ALLOWED.name}')")
    places = (ALLOWED.address4, ALLOWED.address6)
    ports = (1, 7, 123, 161, 443, 500, 3478, 4500, 51820)
    run(scene, f"fire(targets((UDP, PING), {places}, {ports}))")
    yield from protocols_to(scene, (1, 17, 58), *places)
