"""Which names belong to many owners, by the Public Suffix List that ``publicsuffixlist`` carries with it.

The list's private section counts: below ``github.io`` or ``s3.amazonaws.com`` anybody can have a name.
"""

from functools import lru_cache
from typing import Final

from publicsuffixlist import PublicSuffixList

from outgate.core.channels import parents_of

_VERDICTS_MAX: Final = 16_384
"""Names remembered: some 2 MB, and most policies speak of few."""


@lru_cache(maxsize=_VERDICTS_MAX)
def is_shared(name: str) -> bool:
    """Whether ``name`` is a public suffix, or such suffixes lie below it (as below ``amazonaws.com``).

    A last label that the list does not know is one. Loads the list at the first call, some 50 ms.
    """
    suffixes, above = _load()
    return suffixes.is_public(name) or name in above


@lru_cache(maxsize=1)
def _load() -> tuple[PublicSuffixList, frozenset[str]]:
    suffixes = PublicSuffixList()
    known = suffixes._publicsuffix  # noqa: SLF001 - nothing else tells what lies below a name
    return suffixes, frozenset(parent for suffix in known for parent in parents_of(suffix))
