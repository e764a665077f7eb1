"""Addresses in other spellings: numbers, other bases, IPv4 inside IPv6."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.cases.names_forged import tls_to_an_allowed_host
from attack.scene import Scene
from attack.world import ALLOWED, DENIED, METADATA

NUMBERS = ("45.45.11540", "45.2960660", "757935380", "0x2d2d2d14", "055.055.055.024", "0x2d.055.45.20", "005513226424")
"""Spellings of the denied host's address that ``inet_aton`` takes."""
METADATA_NUMBERS = ("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.254.169.254")


@case(Group.STRINGS, control=tls_to_an_allowed_host)
def an_address_spelled_as_a_number_is_the_same_address(scene: Scene) -> Iterator[str]:
    """``inet_aton`` takes one to four parts in three bases: filters that compare text, and names that are none.

    The class of the ipaddress modules that read leading zeros as decimals (CVE-2021-29921 in Python, CVE-2021-28918 in netmask).
    """
    scene.python(f"""
        lookup("{ALLOWED.name}")
        for host in {(*NUMBERS, *METADATA_NUMBERS)!r}:
            http(host, "{ALLOWED.name}")
            with refused():
                socket.gethostbyname(host + ".")
        """)
    yield from scene.packets_to(DENIED.address4, METADATA)
    numbers = {*NUMBERS, *METADATA_NUMBERS}
    yield from (f"a question for {query.name}" for query in scene.journal().queries if query.name in numbers)


@case(Group.STRINGS, control=tls_to_an_allowed_host)
def an_ipv4_address_inside_an_ipv6_one_is_judged_as_what_it_is(scene: Scene) -> Iterator[str]:
    """Mapped, compatible, NAT64, 6to4, ISATAP-like: the IPv4 rules do not look there, and something on the way unwraps it."""
    packed = "2d2d:2d14"
    wrapped: tuple[str, ...] = (
        f"::ffff:{DENIED.address4}",
        f"::{DENIED.address4}",
        f"64:ff9b::{DENIED.address4}",
        f"2002:{packed}::1",
    )
    wrapped += (f"64:ff9b:1::{DENIED.address4}",)
    scene.python(f"""
        lookup("{ALLOWED.name}")
        for address in {wrapped!r}:
            for port in (80, 443, 7):
                with refused(), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as flow:
                    flow.settimeout(0.3)
                    flow.connect((address, port))
                    flow.sendall(b"GET / HTTP/1.1\\r\\nHost: {ALLOWED.name}\\r\\n\\r\\n")
            udp(address, 443, wait_s=0.02)
        """)
    yield from scene.packets_to(DENIED.address4, *(address for address in wrapped if not address.startswith("::")))


@case(Group.STRINGS, control=tls_to_an_allowed_host)
def a_zone_does_not_make_another_address_of_it(scene: Scene) -> Iterator[str]:
    """``address%interface``: cut off by one side, part of the text for the other; and scoped sockets ignore routes."""
    scene.python(f"""
        lookup("{ALLOWED.name}")
        for index, name in socket.if_nameindex():
            for host in ("{DENIED.address6}%" + name, "{DENIED.address6}%" + str(index)):
                http(host, "{ALLOWED.name}")
                tls(host, "{ALLOWED.name}")
            with refused(), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as flow:
                flow.settimeout(1)
                flow.connect(("{DENIED.address6}", 80, 0, index))
        """)
    yield from scene.packets_to(DENIED.address6)


@case(Group.STRINGS, control=tls_to_an_allowed_host)
def an_allowed_name_in_front_of_an_address_opens_no_address(scene: Scene) -> Iterator[str]:
    """Names that carry an address (nip.io and its like), user information in front of one, an address with a dot behind it."""
    dashed = DENIED.address4.replace(".", "-")
    hosts = (
        f"{DENIED.address4}.nip.io",
        f"{ALLOWED.name}.{DENIED.address4}",
        f"{dashed}.{ALLOWED.name}",
        f"{DENIED.address4}.",
    )
    scene.internet.set_records(hosts[0], addresses=(DENIED.address4,))
    scene.internet.set_records(hosts[2], addresses=(DENIED.address4,))
    scene.python(f"""
        for host in {hosts!r}:
            for address in (*lookup(host), host):
                http(address, "{ALLOWED.name}")
        """)
    yield from scene.packets_to(DENIED.address4)
