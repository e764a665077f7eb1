"""The inputs that are kept: below ``corpus/``, one directory for each target, one file for each input."""

import hashlib
import re
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
FINDS: Final = Path(__file__).parent / "finds.md"
_FIND: Final = re.compile(r"^\| `([a-z_]+)/([a-z0-9_-]+)` \| (.+) \|$", re.MULTILINE)


def read_corpus(target: str) -> dict[str, bytes]:
    """The inputs of one target by their files' names."""
    return {file.name: file.read_bytes() for file in sorted((CORPUS / target).iterdir())}


def add_to_corpus(target: str, data: bytes) -> None:
    """Keep one input, named by what it holds."""
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def read_finds() -> dict[tuple[str, str], str]:
    """What fuzzing has found: (target, file) → the sentence that says what was wrong."""
    return {(target, file): sentence for target, file, sentence in _FIND.findall(FINDS.read_text(encoding="utf-8"))}
