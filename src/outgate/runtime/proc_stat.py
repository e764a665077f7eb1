"""/proc/PID/stat, whose second field is of the process's own making."""

from pathlib import Path


def read_stat(pid: int) -> list[str] | None:
    """The fields from the third (state) on; None when there is no such process."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def parse_stat(data: bytes) -> list[str]:
    """The fields from the third (state) on.

    The second, in parentheses, is whatever the process calls itself (prctl(2), PR_SET_NAME): any bytes but NUL,
    parentheses, blanks and such as are no UTF-8 among them. What follows is the kernel's.
    """
    return data.rpartition(b")")[2].decode("ascii").split()
