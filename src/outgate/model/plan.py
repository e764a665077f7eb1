"""Enforcement plans: what one policy means to the kernel. Made by ``core.compile``, rendered by ``dataplane``."""

from dataclasses import dataclass

from outgate.model.addresses import Protocol

GRANT_ALL_BIT = 0x8000_0000
"""Set in the grant of an ``allow_all``: such flows were never inspected and never outlive it."""
GRANT_FIRST = 16
GRANT_LAST = 0x3FFF_FFFF
ENDPOINTS_BIT = 0x4000_0000
"""Set, without GRANT_ALL_BIT, in the grants of what an operator lists behind a policy's flags."""
ENDPOINTS_EPOCHS = 64
_REPORT_BITS = 0x7000_0000
"""The flag that no endpoints have: set in the grants of what a policy that only reports let through."""
REPORT_NUMBER_MAX = 0x0FFF_FFFF
"""The highest policy number that such a grant has room for."""
ENDPOINTS_NUMBER_MAX = 0x3F_FFFF
"""The highest policy number that such a grant has room for: four million."""
MARK_RESET_SENT = 0xFFFF_FFFF
"""Conntrack mark of a revoked flow whose one reset has passed. Never a grant."""


def grant_of_allow_all(policy_number: int) -> int:
    """The grant (conntrack mark) that every flow allowed by this policy's ``allow_all`` carries."""
    return GRANT_ALL_BIT | policy_number


def grant_of_endpoints(policy_number: int, flag: int, epoch: int) -> int:
    """The grant of flows to networks that the operator lists behind a policy's flag, the ``flag``-th of three.

    ``epoch`` counts the changes of the operator's lists: a flow of an earlier list does not carry the grant of a
    later one, and so is judged again. Raises ValueError for what does not fit.
    """
    if not 0 <= policy_number <= ENDPOINTS_NUMBER_MAX or not 0 <= flag < 3:
        raise ValueError(f"there is no grant for flag {flag} of policy number {policy_number}")
    return ENDPOINTS_BIT | flag << 28 | epoch % ENDPOINTS_EPOCHS << 22 | policy_number


def grant_of_report(policy_number: int) -> int:
    """The grant of flows that no rule of this policy allows, and that it lets through because it only reports.

    Raises ValueError for a number that does not fit.
    """
    if not 0 <= policy_number <= REPORT_NUMBER_MAX:
        raise ValueError(f"there is no grant of report for policy number {policy_number}")
    return _REPORT_BITS | policy_number


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
    Likewise the policy's grant of report while it only reports; flows under it live on when a rule covers them.
    """

    number: int
    grant_all: int
    live: frozenset[int]
    port_cells: tuple[PortCell, ...]
    address_cells: tuple[AddressCell, ...]

    @property
    def is_report_only(self) -> bool:
        """Whether what no cell covers passes, too, and is on record."""
        return self.number <= REPORT_NUMBER_MAX and grant_of_report(self.number) in self.live
