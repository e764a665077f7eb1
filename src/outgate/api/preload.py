"""Import what would otherwise be imported late: after the process gave up its privileges it may not read files.

A test serves requests and fails when anything under the interpreter's own directories is opened after this.
"""

import codecs
import importlib
from typing import Final

from outgate.control.public_suffixes import is_shared

_LATE_MODULES: Final = (
    "anyio._backends._asyncio",
    "anyio._core._fileio",
    "concurrent.futures.thread",
    "encodings.idna",
    "httpcore",
    "psycopg",
    "psycopg_binary",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
_LATE_CODECS: Final = ("ascii", "idna", "latin-1", "punycode", "utf-8")


def preload() -> None:
    """Have all code in memory."""
    for name in _LATE_MODULES:
        importlib.import_module(name)
    # The registry of codecs looks for a module at a codec's first use.
    for codec in _LATE_CODECS:
        codecs.lookup(codec)
    # Its list is a file.
    is_shared("com")
