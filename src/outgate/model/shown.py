"""How a refused text is shown in the message that refuses it."""

from typing import Final

_SHOWN_LENGTH_MAX: Final = 80
"""Long enough for any name worth reading; a megabyte of nonsense must not come back as a message."""


def show_text(text: str) -> str:
    """``text`` quoted, with control characters escaped, cut to 80 characters."""
    return repr(text if len(text) <= _SHOWN_LENGTH_MAX else text[: _SHOWN_LENGTH_MAX - 3] + "...")
