"""Names of environment variables: what a devbox is given by name, and what a secret may be called."""

import re
from typing import Final

from outgate.errors import InvalidValueError

VARIABLE_PATTERN: Final = "^[A-Za-z_][A-Za-z0-9_]*$"
_VARIABLE: Final = re.compile(VARIABLE_PATTERN.removesuffix("$") + r"\Z", re.ASCII)


def parse_variable(name: str, *, field: str) -> str:
    """``name``, if a shell can have a variable of that name. Raises InvalidValueError."""
    if not _VARIABLE.match(name):
        message = f"{name[:80]!r} is no variable name; use letters, digits and '_', not beginning with a digit."
        raise InvalidValueError(message, field=field)
    return name
