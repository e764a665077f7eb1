"""``NAME=VALUE`` as options write it."""

from collections.abc import Iterable

import typer


def parse_pairs(given: Iterable[str] | None, option: str) -> dict[str, str]:
    """The names and values that ``option`` was given; of a repeated name the last. Raises BadParameter (exit 2)."""
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} {text!r} has no name, or no '='; write NAME=VALUE.")
        pairs[name] = value
    return pairs
