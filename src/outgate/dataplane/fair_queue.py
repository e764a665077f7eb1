"""A queue in which nobody waits behind the crowd of another."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Things of several owners, taken one of each in turn; those of one owner in the order in which they came.

    Putting in and taking out cost the same for any number of them.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}
        """Owner → what waits, never empty; who is next stands first."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def count(self, owner: str) -> int:
        """How much of ``owner``'s waits."""
        line = self._lines.get(owner)
        return 0 if line is None else len(line)

    def put(self, owner: str, item: T) -> None:
        """Let ``item`` wait."""
        self._size += 1
        line = self._lines.get(owner)
        if line is None:
            self._lines[owner] = deque((item,))
        else:
            line.append(item)

    def take(self) -> T:
        """The next one. Raises IndexError when nothing waits."""
        if not self._lines:
            raise IndexError("nothing waits")
        owner = next(iter(self._lines))
        line = self._lines.pop(owner)
        item = line.popleft()
        if line:
            self._lines[owner] = line
        self._size -= 1
        return item

    def drop(self, owner: str) -> tuple[T, ...]:
        """Take out all of ``owner``'s."""
        dropped = tuple(self._lines.pop(owner, ()))
        self._size -= len(dropped)
        return dropped

    def owners(self) -> tuple[str, ...]:
        """Of what waits."""
        return tuple(self._lines)
