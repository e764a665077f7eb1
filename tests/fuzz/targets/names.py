"""Host names as people and programs spell them."""

import unicodedata

from outgate.core.match import prepare_patterns
from outgate.errors import InvalidValueError
from outgate.model.names import NAME_LENGTH_MAX, parse_domain_name, parse_host_pattern

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def read_name(data: bytes) -> None:
    """UTF-8 text. No two spellings that differ in more than case and one last dot are one name."""
    text = data.decode("utf-8", "replace")
    try:
        name = parse_domain_name(text)
    except InvalidValueError:
        _check_no_look_alike(text)
        return
    assert parse_domain_name(name) == name
    assert set(name) <= _LETTERS
    assert len(name) <= NAME_LENGTH_MAX
    assert text.isascii()
    assert name == text.removesuffix(".").lower()


def _check_no_look_alike(text: str) -> None:
    """What is refused is refused in a pattern as well, and not folded into what it looks like."""
    try:
        pattern = parse_host_pattern(text)
    except InvalidValueError as error:
        complaint = error.message
    else:
        complaint = ""
    if complaint:
        assert complaint.isprintable()
        return
    assert pattern.is_wildcard
    assert unicodedata.normalize("NFKC", text) == text
    assert prepare_patterns([pattern]).find(pattern.name) is None
