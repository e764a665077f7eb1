"""What to think twice about in a stored policy."""

from functools import lru_cache
from typing import Final

from outgate.control.public_suffixes import is_shared
from outgate.core.advice import Advice, advise_policy
from outgate.core.documents import policy_from_document
from outgate.model.desired import PolicyDocument

_ADVISED_MAX: Final = 1024
"""Versions of policies whose advice is remembered: each is looked at again and again, and never changes."""


@lru_cache(maxsize=_ADVISED_MAX)
def advise_document(document: PolicyDocument) -> tuple[Advice, ...]:
    """What to think twice about. Raises InvalidValueError for a document that makes no sense."""
    return advise_policy(policy_from_document(document)[0], is_shared)
