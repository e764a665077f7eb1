"""The scoreboard: counts by case, the worst attempt counts, and nothing that let something through looks well."""

from collections.abc import Iterator

import pytest
from rich.console import Console

from attack import scoreboard
from attack.case import Case, Group
from attack.runner import Attempt, Result
from attack.scene import Scene, Who
from attack.scoreboard import SystemRun


def _attack(scene: Scene) -> Iterator[str]:
    yield from ()


def _control(scene: Scene) -> bool:
    return True


def _case(name: str, group: Group) -> Case:
    return Case(group, name, "A story.", _attack, _control, frozenset(), None)


FORGED = _case("a_forged_name_opens_nothing", Group.NAMES)
TUNNEL = _case("dns_is_no_tunnel", Group.DNS)
REBOUND = _case("an_answer_is_not_rebound", Group.DNS)


def _run(name: str = "outgate", **results: tuple[Result, Result]) -> SystemRun:
    """Each case's results as root and as user."""
    cases = {"forged": FORGED, "tunnel": TUNNEL, "rebound": REBOUND}
    attempts = [
        Attempt(cases[key], who, result, ("one", "two") if result is Result.GOT_THROUGH else ())
        for key, pair in results.items()
        for who, result in zip(Who, pair, strict=True)
    ]
    return SystemRun(name, f"{name} 1.0", "How it was set up.", 12.34, tuple(attempts))


def test_a_case_counts_as_its_worst_attempt() -> None:
    run = _run(
        forged=(Result.STOPPED, Result.GOT_THROUGH),
        tunnel=(Result.CONTROL_FAILED, Result.STOPPED),
        rebound=(Result.STOPPED, Result.STOPPED),
    )
    assert run.counted() == {Result.GOT_THROUGH: 1, Result.CONTROL_FAILED: 1, Result.STOPPED: 1}
    assert run.counted(Group.DNS) == {Result.CONTROL_FAILED: 1, Result.STOPPED: 1}
    assert [attempt.case for attempt in run.of(Result.GOT_THROUGH)] == [FORGED]


@pytest.mark.parametrize(
    ("result", "held"),
    [
        (Result.STOPPED, True),
        (Result.NOT_APPLICABLE, True),
        (Result.GOT_THROUGH, False),
        (Result.CONTROL_FAILED, False),
        (Result.BROKEN, False),
    ],
)
def test_one_attempt_decides_whether_the_subject_held(result: Result, *, held: bool) -> None:
    run = _run(forged=(Result.STOPPED, Result.STOPPED), tunnel=(Result.STOPPED, result))
    assert scoreboard.holds([run], subject="outgate") is held


def test_what_gets_through_elsewhere_is_no_failure_but_a_broken_case_is() -> None:
    through = _run("other", forged=(Result.GOT_THROUGH, Result.CONTROL_FAILED))
    broken = _run("other", forged=(Result.BROKEN, Result.STOPPED))
    assert scoreboard.holds([through], subject="outgate")
    assert not scoreboard.holds([broken], subject="outgate")


def test_the_markdown_tells_everything() -> None:
    run = _run(
        forged=(Result.GOT_THROUGH, Result.GOT_THROUGH),
        tunnel=(Result.STOPPED, Result.STOPPED),
        rebound=(Result.NOT_APPLICABLE, Result.NOT_APPLICABLE),
    )
    assert (
        scoreboard.render_markdown([run])
        == """### outgate 1.0

How it was set up.

| group | stopped | got through | control failed | not applicable | broken |
|---|---:|---:|---:|---:|---:|
| name against address against handshake | 0 | 1 | 0 | 0 | 0 |
| DNS | 1 | 0 | 0 | 1 | 0 |
| strings and parsing | 0 | 0 | 0 | 0 | 0 |
| below TCP and around the path | 0 | 0 | 0 | 0 | 0 |
| time, change and failure | 0 | 0 | 0 | 0 | 0 |
| all | 1 | 1 | 0 | 1 | 0 |

Got through:

* a forged name opens nothing

Not applicable:

* an answer is not rebound
"""
    )


def test_the_page_keeps_what_stands_around_the_marks() -> None:
    page = f"before\n{scoreboard.BEGIN}old\n{scoreboard.END}after\n"
    once = scoreboard.put_into(page, "new\n")
    assert once == f"before\n{scoreboard.BEGIN}new\n{scoreboard.END}after\n"
    assert scoreboard.put_into(once, "new\n") == once
    with pytest.raises(ValueError, match="has no part between"):
        scoreboard.put_into("a page\n", "new\n")


def test_the_json_has_every_attempt() -> None:
    run = _run(forged=(Result.STOPPED, Result.GOT_THROUGH))
    assert scoreboard.as_json([run]) == {
        "systems": [
            {
                "name": "outgate",
                "version": "outgate 1.0",
                "how": "How it was set up.",
                "took_s": 12.3,
                "cases": {"stopped": 0, "got through": 1, "control failed": 0, "not applicable": 0, "broken": 0},
                "attempts": [
                    {"case": FORGED.name, "group": str(FORGED.group), "who": "root", "result": "stopped", "told": []},
                    {
                        "case": FORGED.name,
                        "group": str(FORGED.group),
                        "who": "user",
                        "result": "got through",
                        "told": ["one", "two"],
                    },
                ],
            }
        ]
    }


def test_what_attackers_say_reaches_the_terminal_short_and_without_control_characters() -> None:
    attempt = Attempt(FORGED, Who.ROOT, Result.GOT_THROUGH, ("\x1b[31mred" + "x" * 1000, "b", "c", "d"))
    told = scoreboard.told(attempt)
    assert len(told) == scoreboard.TOLD_MAX
    assert "\x1b" not in told[0]
    assert len(told[0]) == scoreboard.TOLD_CHARACTERS_MAX


def test_the_terminal_shows_the_counts() -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(scoreboard.table(_run(forged=(Result.GOT_THROUGH, Result.STOPPED))))
    row = next(line for line in capture.get().splitlines() if line.startswith("│ all"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["all", "·", "1", "·", "·", "·"]
