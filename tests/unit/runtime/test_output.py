"""The last lines of files of any size and content."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from outgate.runtime.base import ExecOutput
from outgate.runtime.output import read_last_lines


def write(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / "stdout"
    file.write_bytes(data)
    return file


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_last_lines(tmp_path / "absent", 10) == ExecOutput("", truncated=False)


def test_the_last_line_counts_with_and_without_its_newline(tmp_path: Path) -> None:
    assert read_last_lines(write(tmp_path, b"a\nb\nc\n"), 2) == ExecOutput("b\nc\n", truncated=True)
    assert read_last_lines(write(tmp_path, b"a\nb\nc"), 2) == ExecOutput("b\nc", truncated=True)


def test_all_lines_are_not_truncated(tmp_path: Path) -> None:
    assert read_last_lines(write(tmp_path, b"a\nb\n"), 2) == ExecOutput("a\nb\n", truncated=False)


def test_no_lines_of_something_are_truncated(tmp_path: Path) -> None:
    assert read_last_lines(write(tmp_path, b"a\n"), 0) == ExecOutput("", truncated=True)


def test_bytes_that_are_not_text_are_replaced(tmp_path: Path) -> None:
    assert read_last_lines(write(tmp_path, b"\xff\x00ok\n"), 5) == ExecOutput("\ufffd\x00ok\n", truncated=False)


def test_one_endless_line_is_cut_at_a_character(tmp_path: Path) -> None:
    output = read_last_lines(write(tmp_path, "é".encode() * 100), 5, bytes_max=51)
    assert output == ExecOutput("é" * 25, truncated=True)


def test_lines_over_many_blocks(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(200_000)]
    output = read_last_lines(write(tmp_path, "".join(lines).encode()), 20_000)
    assert output == ExecOutput("".join(lines[-20_000:]), truncated=True)


@given(st.lists(st.text(alphabet="ab\u00e9", max_size=5), max_size=20), st.booleans(), st.integers(0, 25))
def test_like_splitting_the_whole(lines: list[str], has_end: bool, last_n: int) -> None:
    text = "\n".join(lines) + ("\n" if has_end else "")
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        kept = text.splitlines(keepends=True)
        expected = "".join(kept[max(0, len(kept) - last_n) :]) if last_n else ""
        assert read_last_lines(Path(file.name), last_n) == ExecOutput(expected, truncated=expected != text)
