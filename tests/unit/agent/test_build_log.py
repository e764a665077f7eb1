"""A build's log: in order, in parts that are known again, bounded, and not lost with the api."""

import asyncio

import pytest

from outgate.agent import build_log
from outgate.agent.build_log import LINE_LENGTH_MAX, TAIL_LINES_MAX, BuildLog
from outgate.client.transport import PeerUnreachableError
from outgate.model.desired import BuildLogPart


class Target:
    """Takes parts, after so many failures."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.parts: list[BuildLogPart] = []

    async def store_build_log(self, blueprint_id: str, part: BuildLogPart) -> None:
        await asyncio.sleep(0)
        assert blueprint_id == "bpt_1"
        if self.failures:
            self.failures -= 1
            raise PeerUnreachableError("the api does not answer")
        self.parts.append(part)

    @property
    def messages(self) -> list[str]:
        return [line.message for part in self.parts for line in part.lines]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_log, "_SEND_EVERY_S", 0.001)
    monkeypatch.setattr(build_log, "_RETRY_S", 0.001)


def test_lines_arrive_while_the_build_goes_on_and_in_order() -> None:
    async def scenario() -> None:
        target = Target()
        log = BuildLog(target, "bpt_1", attempt=2)
        log.start()
        log.say("one\ntwo")
        async with asyncio.timeout(5):
            while target.messages != ["one", "two"]:  # noqa: ASYNC110 - real time
                await asyncio.sleep(0.001)
        log.say("", level="error")
        await log.aclose()
        assert target.messages == ["one", "two", ""]
        assert {part.attempt for part in target.parts} == {2}
        assert [part.number for part in target.parts] == list(range(len(target.parts)))
        assert target.parts[-1].lines[-1].level == "error"

    asyncio.run(scenario())


def test_an_api_that_is_away_for_a_while_gets_everything_once() -> None:
    async def scenario() -> None:
        target = Target(failures=5)
        log = BuildLog(target, "bpt_1", attempt=1)
        log.start()
        for number in range(2500):
            log.say(str(number))
        await log.aclose()
        assert target.messages == [str(number) for number in range(2500)]

    asyncio.run(scenario())


def test_an_endless_log_keeps_its_beginning_and_its_end() -> None:
    async def scenario() -> None:
        target = Target()
        log = BuildLog(target, "bpt_1", attempt=1)
        for number in range(1000):
            log.say(f"{number} " + "x" * 2 * LINE_LENGTH_MAX)
        log.say("the reason")
        await log.aclose()
        messages = target.messages
        assert messages[0].startswith("0 ")
        assert messages[-1] == "the reason"
        assert max(map(len, messages)) == LINE_LENGTH_MAX
        assert len(messages) < 500
        left_out = next(position for position, text in enumerate(messages) if text.startswith("…"))
        assert len(messages) - left_out - 1 == TAIL_LINES_MAX
        kept = left_out + TAIL_LINES_MAX
        assert f" {1001 - kept} lines" in messages[left_out]

    asyncio.run(scenario())


def test_an_api_that_stays_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(build_log, "_LAST_WORDS_S_MAX", 0.05)
        log = BuildLog(Target(failures=10**9), "bpt_1", attempt=1)
        log.say("lost")
        async with asyncio.timeout(5):
            await log.aclose()

    asyncio.run(scenario())
