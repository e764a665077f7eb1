"""A queue in which owners take turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.fair_queue import FairQueue


def test_one_of_each_owner_in_turn_however_many_one_has() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(100):
        queue.put("crowd", number)
    queue.put("neighbour", 1000)
    assert [queue.take() for _ in range(4)] == [0, 1000, 1, 2]
    queue.put("late", 2000)
    assert [queue.take() for _ in range(3)] == [3, 2000, 4]
    assert (len(queue), queue.count("crowd"), queue.count("late"), queue.owners()) == (95, 95, 0, ("crowd",))


def test_what_an_owner_had_waiting_can_be_dropped() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "1")
    queue.put("b", "2")
    queue.put("a", "3")
    assert queue.drop("a") == ("1", "3")
    assert queue.drop("a") == ()
    assert [len(queue), queue.take(), len(queue)] == [1, "2", 0]
    with pytest.raises(IndexError):
        queue.take()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=60))
def test_everything_comes_out_once_and_in_its_owners_order(items: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for owner, number in items:
        queue.put(owner, (owner, number))
    taken = [queue.take() for _ in range(len(queue))]
    for owner in "abc":
        assert [item for item in taken if item[0] == owner] == [item for item in items if item[0] == owner]
