"""The last lines of a file of any size, in bounded memory."""

import os
from pathlib import Path
from typing import Final

from outgate.runtime.base import ExecOutput

_BLOCK_BYTES: Final = 65536
OUTPUT_BYTES_MAX: Final = 1 << 20
"""The most that is read of one stream for one answer; whoever wants more reads the stream itself."""


def read_last_lines(file: Path, last_n: int, bytes_max: int = OUTPUT_BYTES_MAX) -> ExecOutput:
    """The last ``last_n`` lines of ``file`` (its end without a newline counts as one), at most ``bytes_max`` of them.

    Bytes that are not UTF-8 are replaced. A missing file is an empty one.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ExecOutput("", truncated=False)
    try:
        return _read_last_lines(descriptor, last_n, bytes_max)
    finally:
        os.close(descriptor)


def _read_last_lines(descriptor: int, last_n: int, bytes_max: int) -> ExecOutput:
    start = size = os.fstat(descriptor).st_size
    data = b""
    while start > 0 and size - start < bytes_max and data[:-1].count(b"\n") < last_n:
        length = min(_BLOCK_BYTES, start, bytes_max - (size - start))
        start -= length
        data = os.pread(descriptor, length, start) + data
    cut = _start_of_lines(data, last_n)
    kept = data[cut:]
    truncated = start + cut > 0
    if cut == 0 and truncated:
        kept = _from_character(kept)
    return ExecOutput(kept.decode(errors="replace"), truncated)


def _start_of_lines(data: bytes, last_n: int) -> int:
    """Where the last ``last_n`` lines of ``data`` begin; 0 when it has no more than these."""
    if last_n <= 0:
        return len(data)
    position = len(data) - data.endswith(b"\n")
    for _ in range(last_n):
        position = data.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1


def _from_character(data: bytes) -> bytes:
    """``data`` without the rest of a UTF-8 character that was cut (at most three continuation bytes)."""
    cut = 0
    while cut < min(3, len(data)) and data[cut] & 0xC0 == 0x80:
        cut += 1
    return data[cut:]
