"""What a follower of the flow log reads."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from outgate.control import flows
from outgate.control.accounts import create_account
from outgate.control.callers import Caller
from outgate.control.services import Services
from outgate.control.wakeups import Subject, Topic
from outgate.store.flows import FlowFilter, FlowRow, find_last_number, insert_flows, list_flows_after

NOW_MS = 1_795_000_000_000


@pytest.fixture
def caller(services: Services) -> Caller:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    return Caller(made.account_id, made.key_id)


def record(account_id: str, name: str) -> dict[str, Any]:
    texts = dict.fromkeys(("reason", "point", "rule", "sentence", "address", "protocol"), "")
    numbers = dict.fromkeys(("revision", "count"), 1) | dict.fromkeys(("time_ms", "began_ms"), NOW_MS)
    nothing = dict.fromkeys(("bytes_out", "bytes_in", "duration_ms"))
    owner = {"account_id": account_id, "devbox_id": "dbx_1", "policy_id": "npol_1"}
    return texts | numbers | nothing | owner | {"verdict": "allow", "name": name, "port": 0}


def test_what_a_follower_does_not_want_is_looked_at_once(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    has_looked = threading.Event()

    def look(*arguments: Any, after: int, limit: int) -> Sequence[FlowRow]:
        looks.append(after)
        has_looked.set()
        return list_flows_after(*arguments, after=after, limit=limit)

    monkeypatch.setattr(flows, "list_flows_after", look)

    def add(*names: str) -> int:
        rows = [record(caller.account_id, name) for name in names]
        services.database.write_now(lambda tx: insert_flows(tx, rows))
        services.wakeups.notify(Topic(Subject.FLOWS, caller.account_id))
        return services.database.read_now(find_last_number)

    async def run() -> None:
        following = flows.follow_flows(services, caller, FlowFilter(name="wanted"), after=None)
        assert await anext(following) == ()
        coming = asyncio.ensure_future(anext(following))
        await asyncio.to_thread(has_looked.wait, 30)
        last = add(*["other"] * 5)
        while looks[-1] < last:
            has_looked.clear()
            assert await asyncio.to_thread(has_looked.wait, 30), looks
        add("wanted")
        (found,) = await coming
        assert found.name == "wanted"
        await following.aclose()

    asyncio.run(asyncio.wait_for(run(), 40))
