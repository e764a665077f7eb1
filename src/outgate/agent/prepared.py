"""Policies made ready for decisions, for what the kernel tells afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outgate.core.documents import policy_from_document
from outgate.core.prepared import PreparedPolicy, prepare_policy
from outgate.model.desired import PolicyDocument
from outgate.model.flow import HostContext

_PREPARED_MAX: Final = 256
"""Policies kept ready; more than that at once are rarely asked about, and a miss costs some milliseconds."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document ready for decisions; ``places`` are those of its ``allowed_cidrs`` by their grants."""

    document: PolicyDocument
    policy: PreparedPolicy
    places: Mapping[int, int]


class PreparedDocuments:
    """Prepares documents when they are needed, and keeps the latest ones."""

    def __init__(self, context: HostContext) -> None:
        self._context = context
        self._prepared: dict[tuple[str, int], PreparedDocument] = {}

    def prepare(self, document: PolicyDocument) -> PreparedDocument:
        """``document`` ready for decisions. Raises InvalidValueError for one that makes no sense."""
        key = document.id, document.revision
        known = self._prepared.get(key)
        if known is None or known.document != document:
            policy, grants = policy_from_document(document)
            if len(self._prepared) >= _PREPARED_MAX:
                del self._prepared[next(iter(self._prepared))]
            places = {grant: place for place, grant in enumerate(grants)}
            known = PreparedDocument(document, prepare_policy(policy, self._context), places)
            self._prepared[key] = known
        return known
