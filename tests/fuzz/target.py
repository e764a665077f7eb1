"""What a fuzz target is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under test.

    ``run`` takes any bytes. It returns for those that the parser takes, and for those that the parser refuses by the
    error it documents; everything else it lets out is a find. ``examples``: how many mutations of the corpus a
    short run tries, some 0.7 s' worth. ``needs_root``: it makes files of other users.
    """

    name: str
    parser: str
    invariant: str
    run: Callable[[bytes], None]
    examples: int
    bytes_max: int = 4096
    needs_root: bool = False
