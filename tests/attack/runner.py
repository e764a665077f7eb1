"""One attempt of a case on a running system, and what it shows."""

from dataclasses import dataclass
from enum import StrEnum

from attack.case import Case
from attack.scene import Ability, BrokenAttackError, Running, Scene, Who
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
        arrived = case.control(Scene(running, internet, who))
    except BrokenAttackError as error:
        return Attempt(case, who, Result.CONTROL_FAILED, (str(error),))
    if not arrived:
        return Attempt(case, who, Result.CONTROL_FAILED, ("the legitimate twin did not arrive",))
    try:
        told = tuple(case.attack(Scene(running, internet, who)))
    except BrokenAttackError as error:
        return Attempt(case, who, Result.BROKEN, (str(error),))
    return Attempt(case, who, Result.GOT_THROUGH if told else Result.STOPPED, told)


def tried(case: Case, opened: tuple[Running, Internet], who: Who, abilities: frozenset[Ability]) -> Attempt:
    """The same, where the system may lack what the case needs, and where whatever goes wrong ends this case only."""
    if not case.needs <= abilities:
        return Attempt(
            case, who, Result.NOT_APPLICABLE, tuple(f"needs {need}" for need in sorted(case.needs - abilities))
        )
    try:
        return attempt(case, *opened, who)
    except Exception as error:  # noqa: BLE001 - one case must not end the whole run
        return Attempt(case, who, Result.BROKEN, (f"{type(error).__name__}: {error}",))
