"""Who plays in the demo: on the little internet, or against the real network."""

from dataclasses import dataclass
from pathlib import Path

from outgate.cli.demo.control import WEB
from outgate.cli.demo.internet import Internet

CA_IN_DEVBOX = "/tmp/demo-ca.pem"  # noqa: S108 - inside the devbox, whose /tmp is its own


@dataclass(frozen=True, slots=True)
class Cast:
    """The names of the story. ``internet`` is None when they are real.

    ``allowed`` is listed by the first policy, ``other`` by the second; ``lasting`` keeps a connection open
    until it is cut. ``ca_file``: the authority that devboxes must trust besides their own.
    """

    allowed: str
    other: str
    lasting: str
    ca_file: Path | None
    internet: Internet | None


def little_cast(internet: Internet) -> Cast:
    """Three hosts, both families each, on ``internet``."""
    cast = Cast("packages.example.org", "paste.example.net", "downloads.example.org", internet.ca_file, internet)
    for number, name in enumerate((cast.allowed, cast.other, cast.lasting), start=10):
        internet.add_host(name, addresses=(f"45.45.45.{number}", f"2a0f:4444::{number}"), services=WEB)
    return cast


def real_cast(host: str, ca_file: Path | None = None) -> Cast:
    """``host``, and a name that exists everywhere to compare it with (RFC 2606)."""
    other = "example.com" if host != "example.com" else "example.org"
    return Cast(host, other, host, ca_file, None)
