import pytest

from outgate.control.texts import parse_metadata, parse_name, parse_text
from outgate.errors import InvalidValueError


@pytest.mark.parametrize("text", ["a", "Größe 💾", " x ", "a" * 256])
def test_names(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "A name must not be empty."),
        ("a" * 257, "This is 257 characters long; use at most 256."),
        ("a\nb", "This holds a control character; write one line of plain text."),
        ("a\x00", "This holds a control character; write one line of plain text."),
        ("a\x7f", "This holds a control character; write one line of plain text."),
    ],
)
def test_names_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_name(text)
    assert (caught.value.message, caught.value.field) == (message, "name")


def test_long_texts_and_nul_are_refused() -> None:
    assert parse_text("a\nb", field="description") == "a\nb"
    with pytest.raises(InvalidValueError, match="NUL"):
        parse_text("a\x00b", field="description")
    with pytest.raises(InvalidValueError, match="4097 characters long"):
        parse_text("a" * 4097, field="description")


@pytest.mark.parametrize(
    "metadata", [{str(n): "" for n in range(101)}, {"k" * 257: ""}, {"k": "v" * 4097}, {"k\0": ""}, {"k": "\0"}]
)
def test_metadata_is_bounded(metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_metadata(metadata)
    assert caught.value.field is not None
    assert caught.value.field.startswith("metadata")
