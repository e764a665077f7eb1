"""Types of body fields that several routes share.

The constraints are for the OpenAPI document only: control judges, with better words.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from outgate.api.bodies import as_whole
from outgate.control.devbox_input import ENVIRONMENT_ENTRIES_MAX
from outgate.control.devbox_launch import COMMAND_LENGTH_MAX
from outgate.control.texts import (
    METADATA_ENTRIES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_VALUE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    NAME_PATTERN,
    TEXT_PATTERN,
)
from outgate.control.variables import VARIABLE_PATTERN


def said(**keywords: Any) -> Any:
    """What the OpenAPI document says of a field, and nothing checks here."""
    return Field(json_schema_extra=keywords)


DevboxName = Annotated[str, said(maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Command = Annotated[str, said(maxLength=COMMAND_LENGTH_MAX, pattern=TEXT_PATTERN)]
Metadata = Annotated[
    dict[str, str],
    said(
        maxProperties=METADATA_ENTRIES_MAX,
        propertyNames={"maxLength": METADATA_KEY_LENGTH_MAX, "pattern": TEXT_PATTERN},
        additionalProperties={"type": "string", "maxLength": METADATA_VALUE_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]
Environment = Annotated[
    dict[str, str],
    said(
        maxProperties=ENVIRONMENT_ENTRIES_MAX,
        propertyNames={"pattern": VARIABLE_PATTERN},
        additionalProperties={"type": "string", "maxLength": COMMAND_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]
# The bounds come before the validator: behind it, they would not reach the OpenAPI document.
Count = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(as_whole)]
