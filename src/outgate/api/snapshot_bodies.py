"""Bodies of the snapshot routes, and what their query parameters mean to control."""

import re
from typing import Annotated, Final

from pydantic import BaseModel
from starlette.datastructures import QueryParams

from outgate.api.bodies import BODY_CONFIG
from outgate.api.field_types import DevboxName, Metadata, said
from outgate.control.snapshots import COMMIT_MESSAGE_LENGTH_MAX, SnapshotInput
from outgate.control.texts import (
    METADATA_ENTRIES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_VALUE_LENGTH_MAX,
    TEXT_PATTERN,
    parse_text,
)
from outgate.errors import InvalidValueError

_FILTER: Final = re.compile(r"metadata\[(?P<key>(?:(?!\]\[).)*)\](?P<several>\[in\])?\Z", re.DOTALL)
_VALUES_MAX: Final = 100
"""Values that one ``metadata[key][in]`` may name."""


class DevboxSnapshotDiskParams(BaseModel):
    """A new snapshot."""

    model_config = BODY_CONFIG

    name: DevboxName | None = None
    commit_message: Annotated[str, said(maxLength=COMMIT_MESSAGE_LENGTH_MAX, pattern=TEXT_PATTERN)] | None = None
    metadata: Metadata | None = None

    def to_input(self) -> SnapshotInput:
        """The value control judges."""
        return SnapshotInput(self.name, self.commit_message, self.metadata)


class DiskSnapshotUpdateParams(DevboxSnapshotDiskParams):
    """A change: absent and null keep, what is given replaces; ``""`` and ``{}`` clear."""


def parse_metadata_filter(query: QueryParams) -> dict[str, frozenset[str]]:
    """For each key the values of which it must have one: ``metadata[key]=value``, ``metadata[key][in]=one,another``.

    Raises InvalidValueError.
    """
    wanted: dict[str, frozenset[str]] = {}
    for name, value in query.multi_items():
        found = _FILTER.match(name)
        if found is None:
            if name.startswith("metadata["):
                raise InvalidValueError("Write metadata[key]=value or metadata[key][in]=one,another.", field=name[:100])
            continue
        key = parse_text(found["key"], field="metadata key", length_max=METADATA_KEY_LENGTH_MAX)
        values = frozenset(value.split(",") if found["several"] else (value,))
        if len(values) > _VALUES_MAX:
            message = f"metadata[{key}][in] names {len(values)} values; at most {_VALUES_MAX} are allowed."
            raise InvalidValueError(message, field="metadata")
        for one in values:
            parse_text(one, field=f"metadata[{key}]", length_max=METADATA_VALUE_LENGTH_MAX)
        wanted[key] = wanted[key] & values if key in wanted else values
    if len(wanted) > METADATA_ENTRIES_MAX:
        raise InvalidValueError(f"At most {METADATA_ENTRIES_MAX} metadata keys can be asked for.", field="metadata")
    return wanted
