"""The moments of an apply at which a process may die, as a seam: an observer that is told of each.

Whoever puts an agent together passes the observer; production's does nothing. Tests pass one that looks at the
far side at each moment, or that ends the process there, and so decide by a number what would else be chance.
"""

from collections.abc import Callable
from enum import Enum, auto


class ApplyStep(Enum):
    """What was done a moment ago, for every change that somebody else could see."""

    # One ``set`` of the kernel's driver
    POLICIES_ADDED = auto()
    ELEMENTS_CHANGED = auto()
    MOVED_OPENED = auto()
    LINKS_REMOVED = auto()
    PINS_FORGOTTEN = auto()
    FLOWS_FORGOTTEN = auto()
    POLICIES_REMOVED = auto()
    PLACES_CLEARED = auto()
    LINK_MADE = auto()
    DEVBOXES_OPENED = auto()
    ROUTER_ENSURED = auto()
    TABLE_REPLACED = auto()
    LINKS_SET = auto()
    LEFTOVERS_REMOVED = auto()
    STRANGERS_FORGOTTEN = auto()
    # One round of the enforcer
    GATE_TOLD = auto()
    KERNEL_SET = auto()
    ENFORCED = auto()
    # The steps of one devbox
    RECORDED = auto()
    SANDBOX_STARTED = auto()
    SANDBOX_STOPPED = auto()
    RECORD_REMOVED = auto()


StepObserver = Callable[[ApplyStep], None]
"""Is told of each step when it is done."""


def ignore_step(step: ApplyStep) -> None:
    """What production passes."""
