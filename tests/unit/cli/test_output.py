import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.cli import output


@given(st.text())
def test_cleaned_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    assert output.clean(text).isprintable()


def test_escape_sequences_are_shown_not_sent() -> None:
    assert output.clean("a\x1b[31mb\n") == "a\\x1b[31mb\\n"


def test_a_piped_table_is_tab_separated_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("id", "name"), [("npol_1", "[bold]x[/bold]"), ("npol_2", None)])
    assert capsys.readouterr().out == "id\tname\nnpol_1\t[bold]x[/bold]\nnpol_2\t\n"


@pytest.mark.parametrize(
    ("time_ms", "text"), [(0, "1970-01-01 00:00:00"), (1_764_000_000_123, "2025-11-24 16:00:00"), (None, ""), ("x", "")]
)
def test_a_time_is_utc_to_the_second(time_ms: object, text: str) -> None:
    assert output.render_time(time_ms) == text
