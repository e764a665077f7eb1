"""What to do about a warning: as docs/warnings.md says, which is part of this package (by a link) for that reason."""

import re
from importlib import resources
from typing import Final

_SECTION: Final = re.compile(r"^## `(\w+)`$", re.MULTILINE)


def parse_advice(page: str) -> dict[str, str]:
    """The text of each section of the page, in single spaces, by the code of its warning."""
    _, *sections = _SECTION.split(page)
    return {code: " ".join(text.split()) for code, text in zip(sections[::2], sections[1::2], strict=True)}


_ADVICE: Final = parse_advice((resources.files("outgate.console") / "warnings.md").read_text("utf-8"))


def find_advice(code: str) -> str:
    """What the warning of that code means and what to do about it; nothing for one of a newer version."""
    return _ADVICE.get(code, "")
