"""Names that are not those of the address, and addresses that are not those of the name."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.scene import Scene
from attack.world import ALLOWED, DENIED


def tls_to_an_allowed_host(scene: Scene) -> bool:
    """The twin of most attacks here."""
    scene.python(f"""
        for address in lookup("{ALLOWED.name}"):
            tls(address, "{ALLOWED.name}")
        """)
    reached = {c.address for c in scene.journal().connections if c.server_name == ALLOWED.name and c.requests}
    return reached == {ALLOWED.address4, ALLOWED.address6}


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
