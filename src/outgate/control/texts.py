"""Free texts that people give: names, descriptions, metadata. Bounded, and storable everywhere."""

from collections.abc import Mapping
from typing import Final

from outgate.errors import InvalidValueError

NAME_LENGTH_MAX: Final = 256
DESCRIPTION_LENGTH_MAX: Final = 4096
METADATA_ENTRIES_MAX: Final = 100
METADATA_KEY_LENGTH_MAX: Final = 256
METADATA_VALUE_LENGTH_MAX: Final = 4096

NAME_PATTERN: Final = "^[^\\x00-\\x1f\\x7f]*$"
TEXT_PATTERN: Final = "^[^\\x00]*$"


def parse_name(text: str, *, field: str = "name") -> str:
    """``text`` as a name: 1 to 256 characters, no control characters. Raises InvalidValueError."""
    if not text:
        raise InvalidValueError("A name must not be empty.", field=field)
    return parse_short_text(text, field=field)


def parse_short_text(text: str, *, field: str) -> str:
    """One line of at most 256 characters, maybe empty. Raises InvalidValueError."""
    if len(text) > NAME_LENGTH_MAX:
        message = f"This is {len(text)} characters long; use at most {NAME_LENGTH_MAX}."
        raise InvalidValueError(message, field=field)
    if any(character < " " or character == "\x7f" for character in text):
        raise InvalidValueError("This holds a control character; write one line of plain text.", field=field)
    return text


def parse_text(text: str, *, field: str, length_max: int = DESCRIPTION_LENGTH_MAX) -> str:
    """Text of several lines. Raises InvalidValueError for NUL, which PostgreSQL cannot store, and over-length."""
    if len(text) > length_max:
        raise InvalidValueError(f"This is {len(text)} characters long; use at most {length_max}.", field=field)
    if "\x00" in text:
        raise InvalidValueError("This holds a NUL character; leave it out.", field=field)
    return text


def make_storable(text: str) -> str:
    """``text`` that nobody could refuse, such as a program's last words, with U+FFFD for NUL.

    PostgreSQL cannot store NUL: one in what a host reports of one devbox would have the whole report rolled back, again
    and again.
    """
    return text.replace("\x00", "\ufffd")


def parse_metadata(metadata: Mapping[str, str], *, field: str = "metadata") -> dict[str, str]:
    """The caller's own notes. Raises InvalidValueError."""
    if len(metadata) > METADATA_ENTRIES_MAX:
        message = f"{field} has {len(metadata)} entries; use at most {METADATA_ENTRIES_MAX}."
        raise InvalidValueError(message, field=field)
    for key, value in metadata.items():
        parse_text(key, field=f"{field} key", length_max=METADATA_KEY_LENGTH_MAX)
        parse_text(value, field=f"{field}[{key!r}]", length_max=METADATA_VALUE_LENGTH_MAX)
    return dict(metadata)
