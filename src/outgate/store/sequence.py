"""The one row of counters. Its lock is the last that a transaction takes, so that no two wait for each other."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from outgate.model.plan import GRANT_LAST
from outgate.store.errors import GrantsExhaustedError
from outgate.store.tables import counters


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one change transaction was given: its place in the sequence, and the first of its new numbers."""

    seq: int
    grant_first: int
    policy_number_first: int


_TAKE: Final = (
    update(counters)
    .where(counters.c.id == 1)
    .values(
        seq=counters.c.seq + 1,
        grant_next=counters.c.grant_next + bindparam("grants"),
        policy_number_next=counters.c.policy_number_next + bindparam("policy_numbers"),
    )
    .returning(counters.c.seq, counters.c.grant_next, counters.c.policy_number_next)
)
_READ: Final = select(counters.c.seq).where(counters.c.id == 1)


def take_numbers(connection: Connection, *, grants: int = 0, policy_numbers: int = 0) -> Numbers:
    """The next place in the sequence, ``grants`` fresh grant ids and ``policy_numbers`` fresh policy numbers.

    The row stays locked until the transaction ends: whoever reads seq N reads all changes up to N.
    Raises GrantsExhaustedError at the end of the grant space.
    """
    taken = {"grants": grants, "policy_numbers": policy_numbers}
    seq, grant_next, policy_number_next = connection.execute(_TAKE, taken).one()
    if grant_next - 1 > GRANT_LAST:
        raise GrantsExhaustedError("All rule ids are used up; CIDR rules can no longer be added.")
    return Numbers(seq, grant_next - grants, policy_number_next - policy_numbers)


def read_seq(connection: Connection) -> int:
    """The place of the last committed change."""
    seq: int = connection.execute(_READ).scalar_one()
    return seq
