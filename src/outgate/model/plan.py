"""Enforcement plans: what one policy means to the kernel. Made by ``core.compile``, rendered by ``dataplane``."""

from dataclasses import dataclass

from outgate.model.addresses import Protocol

GRANT_ALL_BIT = 0x8000_0000
"""Set in the grant of an ``allow_all``: such flows were never inspected and never outlive it."""
GRANT_FIRST = 16
GRANT_LAST = 0x7FFF_FFFF
MARK_RESET_SENT = 0xFFFF_FFFF
"""Conntrack mark of a revoked flow whose one reset has passed. Never a grant."""


def grant_of_allow_all(policy_number: int) -> int:
    """The grant (conntrack mark) that every flow allowed by this policy's ``allow_all`` carries."""
    return GRANT_ALL_BIT | policy_number


@dataclass(frozen=True, slots=True, order=True)
class PortCell:
    """TCP or UDP to IPv4 addresses ``first``..``last`` (as integers), ports ``port_first``..``port_last``.

    Cells of one plan are disjoint: an address, protocol and port lie in at most one of them.
    """

    first: int
    last: int
    protocol: Protocol
    port_first: int
    port_last: int
    grant: int


@dataclass(frozen=True, slots=True, order=True)
class AddressCell:
    """Protocols other than TCP and UDP to IPv4 addresses ``first``..``last``. Disjoint likewise."""

    first: int
    last: int
    grant: int


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """The kernel's part of one policy.

    ``live`` holds every grant that is in force now; a flow whose mark is not live is judged again or
    reset. ``grant_all`` is in ``live`` exactly while ``allow_all`` is on (the cells are then empty).
    """

    number: int
    grant_all: int
    live: frozenset[int]
    port_cells: tuple[PortCell, ...]
    address_cells: tuple[AddressCell, ...]
