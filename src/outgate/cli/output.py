"""What commands print: tables for people, tab-separated lines for pipes, JSON for programs.

Names and sentences may come from inside a devbox, so nothing of them reaches a terminal as markup or control
characters.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonObject = Mapping[str, object]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """``value`` as indented JSON on standard output, whatever it is connected to."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    """``text`` on standard output, whatever it is connected to."""
    sys.stdout.write(clean(text) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere one tab-separated line per row under a line of column names."""
    if not console.is_terminal:
        for row in (columns, *rows):
            sys.stdout.write("\t".join(clean(cell) for cell in row) + "\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One ``name: value`` line for each field that has a value."""
    width = max(map(len, fields), default=0) + 1
    for name, value in fields.items():
        if value in (None, "", [], ()):
            continue
        label = Text(f"{name}:".ljust(width + 1), style="bold")
        console.print(label + Text(clean(value)), soft_wrap=True)


def print_note(text: str) -> None:
    """A remark for the person at the terminal, on standard error, so that pipes stay clean."""
    errors.print(Text(clean(text), style="dim"), soft_wrap=True)


def print_error(message: str) -> None:
    """Why the command failed, in one line."""
    errors.print(Text("error: ", style="bold red") + Text(clean(message)), soft_wrap=True)


def clean(value: object) -> str:
    """``value`` as text in which every control character is escaped."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def render_time(time_ms: object) -> str:
    """Unix milliseconds as a UTC time to the second; an empty text for what is not a time."""
    if not isinstance(time_ms, int):
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
