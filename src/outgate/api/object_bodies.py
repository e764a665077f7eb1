"""Bodies of the storage-object routes, and what they mean to control."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG, Whole
from outgate.control.objects import TTL_MS_MAX, ContentType, ObjectInput
from outgate.control.texts import (
    METADATA_ENTRIES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_VALUE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    NAME_PATTERN,
    TEXT_PATTERN,
)


# The constraints below are for the OpenAPI document only: control judges, with better words.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


Metadata = Annotated[
    dict[str, str],
    _said(
        maxProperties=METADATA_ENTRIES_MAX,
        propertyNames={"maxLength": METADATA_KEY_LENGTH_MAX, "pattern": TEXT_PATTERN},
        additionalProperties={"type": "string", "maxLength": METADATA_VALUE_LENGTH_MAX, "pattern": TEXT_PATTERN},
    ),
]


class ObjectCreateParams(BaseModel):
    """A new object; its bytes are sent to the answer's ``upload_url``."""

    model_config = BODY_CONFIG

    name: Annotated[str, _said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
    content_type: ContentType
    metadata: Metadata | None = None
    ttl_ms: Annotated[Whole, _said(minimum=1, maximum=TTL_MS_MAX)] | None = None

    def to_input(self) -> ObjectInput:
        """The value control judges."""
        return ObjectInput(self.name, self.content_type, self.metadata or {}, self.ttl_ms)
