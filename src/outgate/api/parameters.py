"""Query parameters that several routes share."""

from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import StringConstraints

from outgate.control.ids import IdPrefix, id_pattern, is_id
from outgate.control.texts import NAME_LENGTH_MAX, TEXT_PATTERN
from outgate.errors import InvalidValueError

LIMIT_MAX: Final = 5000

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Entries on the page.")]
IncludeTotalCount = Annotated[bool, Query(description="Whether to count all pages.")]
NamePart = Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX, pattern=TEXT_PATTERN)]


def _cursor(prefix: IdPrefix) -> Any:
    # The pattern is for the document; parse_cursor judges, with better words.
    return Query(description="The last id of the page before.", json_schema_extra={"pattern": id_pattern(prefix)})


PolicyCursor = Annotated[str | None, _cursor(IdPrefix.POLICY)]
DevboxCursor = Annotated[str | None, _cursor(IdPrefix.DEVBOX)]
SnapshotCursor = Annotated[str | None, _cursor(IdPrefix.SNAPSHOT)]
BlueprintCursor = Annotated[str | None, _cursor(IdPrefix.BLUEPRINT)]
ObjectCursor = Annotated[str | None, _cursor(IdPrefix.OBJECT)]
GatewayConfigCursor = Annotated[str | None, _cursor(IdPrefix.GATEWAY_CONFIG)]
McpConfigCursor = Annotated[str | None, _cursor(IdPrefix.MCP_CONFIG)]
WebhookCursor = Annotated[str | None, _cursor(IdPrefix.WEBHOOK)]
DeliveryCursor = Annotated[str | None, _cursor(IdPrefix.DELIVERY)]


def parse_cursor(prefix: IdPrefix, starting_after: str | None) -> str | None:
    """The id after which a page begins; it need not exist any more. Raises InvalidValueError."""
    if starting_after is None or is_id(prefix, starting_after):
        return starting_after
    message = f"starting_after is the last id of the page before, as in {prefix}…; this is {starting_after[:80]!r}."
    raise InvalidValueError(message, field="starting_after")
