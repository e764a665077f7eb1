"""One attempt of a case on a running system, and what it shows."""

from dataclasses import dataclass
from enum import StrEnum

from attack.case import Case
from attack.scene import BrokenAttackError, Running, Scene, Who
from outgate.cli.demo.internet import Internet


class Result(StrEnum):
    """What an attempt shows of a system."""

    STOPPED = "stopped"
    GOT_THROUGH = "got through"
    CONTROL_FAILED = "control failed"
    NOT_APPLICABLE = "not applicable"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A case tried as ``who``; ``told`` are what got through, or what went wrong."""

    case: Case
    who: Who
    result: Result
    told: tuple[str, ...] = ()


def attempt(case: Case, running: Running, internet: Internet, who: Who) -> Attempt:
    """The legitimate twin first: where that does not work, that the attack did not either proves nothing."""
    try:
        if not case.control(Scene(running, internet, who)):
            return Attempt(case, who, Result.CONTROL_FAILED, ("the legitimate twin did not arrive",))
        told = tuple(case.attack(Scene(running, internet, who)))
    except BrokenAttackError as error:
        return Attempt(case, who, Result.BROKEN, (str(error),))
    return Attempt(case, who, Result.GOT_THROUGH if told else Result.STOPPED, told)
