"""The programs that read and write files in a sandbox, and what is made of their words."""

from enum import StrEnum
from typing import Final

from outgate.model.executions import FileProblem

_REASON_LENGTH_MAX: Final = 200


class Word(StrEnum):
    """What the programs say, each on a line of its own, on their status descriptor."""

    READY = "ready"
    """The file is there, or can be made: its bytes follow."""
    DONE = "done"
    """All bytes were read, or written."""
    MISSING = "missing"
    DIRECTORY = "directory"
    SPECIAL = "special"
    DENIED = "denied"
    FAILED = "failed"
    """The reason is on standard error."""


# $1 is absolute. Only regular files: a FIFO would wait for ever, a device never end.
READ_SCRIPT: Final = """\
if [ -d "$1" ]; then echo directory >&3
elif [ -f "$1" ] && [ -r "$1" ]; then
  echo ready >&3
  if cat -- "$1" 3>&-; then echo done >&3; else echo failed >&3; fi
elif [ -f "$1" ]; then echo denied >&3
elif [ -e "$1" ]; then echo special >&3
else
  word=missing above=${1%/*}
  while [ -n "$above" ] && ! [ -d "$above" ]; do above=${above%/*}; done
  [ -x "${above:-/}" ] || word=denied
  echo $word >&3
fi
"""
# A file that was not there before goes again when its bytes break off (SIGTERM) or do not fit.
WRITE_SCRIPT: Final = """\
umask 022
above=${1%/*}
if [ -d "$1" ]; then echo directory >&3; exit; fi
if [ -e "$1" ] && ! [ -f "$1" ]; then echo special >&3; exit; fi
[ -d "${above:-/}" ] || mkdir -p -- "$above" 3>&- || { echo failed >&3; exit; }
undo=:
[ -e "$1" ] || undo='rm -f -- "$1"'
trap 'eval "$undo"; exit' TERM
echo ready >&3
if cat 3>&- >"$1"; then undo=:; echo done >&3; else eval "$undo"; echo failed >&3; fi
"""

PROBLEMS: Final = {
    Word.MISSING: FileProblem.MISSING,
    Word.DIRECTORY: FileProblem.DIRECTORY,
    Word.SPECIAL: FileProblem.SPECIAL,
    Word.DENIED: FileProblem.DENIED,
}
# strerror(3) in the C locale, which the programs are given.
_REASONS: Final = {
    "No space left on device": FileProblem.FULL,
    "Disk quota exceeded": FileProblem.FULL,
    "Permission denied": FileProblem.DENIED,
    "Operation not permitted": FileProblem.DENIED,
    "Read-only file system": FileProblem.DENIED,
    "Is a directory": FileProblem.DIRECTORY,
    "No such file or directory": FileProblem.MISSING,
    "Not a directory": FileProblem.MISSING,
    "Directory nonexistent": FileProblem.MISSING,  # dash, of a name that cannot be made
}
_SENTENCES: Final = {
    FileProblem.MISSING: "There is no such file in the devbox",
    FileProblem.DIRECTORY: "This is a directory; name a file in it",
    FileProblem.SPECIAL: "This is no regular file; pipes, devices and sockets are neither read nor written",
    FileProblem.DENIED: "The devbox's user may not do this",
    FileProblem.FULL: "The devbox's disk is full; make room in it first",
    FileProblem.STALLED: "The file gave or took nothing for too long",
}


def find_reason(complaint: str) -> str:
    """What a program's last complaint ends with, as one short line of printable text."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    last = lines[-1].rpartition(": ")[2] if lines else "the program in the devbox that should have done it was stopped"
    return "".join(character for character in last if character.isprintable())[:_REASON_LENGTH_MAX]


def judge_reason(reason: str) -> FileProblem:
    """The problem behind ``reason``."""
    return _REASONS.get(reason, FileProblem.FAILED)


def describe_problem(problem: FileProblem, path: str, reason: str = "") -> str:
    """A sentence about ``path`` for the person who asked."""
    sentence = _SENTENCES.get(problem, f"This failed in the devbox: {reason}")
    return f"{sentence}: {path[:300]!r}."
