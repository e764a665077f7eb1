"""Who lives on the little internet in the end-to-end tests."""

from dataclasses import dataclass

from support.internet import EVERYTHING, Internet


@dataclass(frozen=True, slots=True)
class Host:
    """A far-side host with one address of each family, offering everything."""

    name: str
    address4: str
    address6: str


ALLOWED = Host("allowed.example.org", "45.45.45.10", "2a0f:4444::10")
ALSO = Host("also.example.org", "45.45.45.11", "2a0f:4444::11")
DENIED = Host("denied.example.net", "45.45.45.20", "2a0f:4444::20")
BELOW = Host("a.deep.wild.example.com", "45.45.45.30", "2a0f:4444::30")
APEX = Host("wild.example.com", "45.45.45.31", "2a0f:4444::31")
HOSTS = (ALLOWED, ALSO, DENIED, BELOW, APEX)

NETWORK_A = "45.45.46.0/25"
NETWORK_B = "45.45.46.128/25"
IN_NETWORK_A = "45.45.46.1"
IN_NETWORK_B = "45.45.46.129"
IN_NO_NETWORK = "45.45.47.1"
PRIVATE = "10.99.0.10"
METADATA = "169.254.169.254"
OTHER_RESOLVER = "45.45.45.77"
MIRRORS = (ALSO.name, NETWORK_B + ":7")
"""What the operator lists behind ``allow_runloop_mirrors``."""
BARE_ADDRESSES = (IN_NETWORK_A, IN_NETWORK_B, IN_NO_NETWORK, PRIVATE, METADATA)


def populate(internet: Internet) -> None:
    """Add them all."""
    for host in HOSTS:
        internet.add_host(host.name, addresses=(host.address4, host.address6), services=EVERYTHING)
    for address in BARE_ADDRESSES:
        internet.add_host(f"at-{address.replace('.', '-')}.internet", addresses=(address,), services=EVERYTHING)
