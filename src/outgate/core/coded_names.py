"""Names that look as if they carried data: many below one zone, hardly one asked for twice, written like code.

Whoever answers for a zone learns every name that is asked below it, so a program can spell data out in names (iodine,
dnscat2). Such names are long, or look like hexadecimal or base32 text, and nobody connects to them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from outgate.core.advice import SharedCheck
from outgate.core.channels import parents_of
from outgate.model.names import DomainName

NAMES_MIN: Final = 8
"""Below this many, names are listed one by one whatever they look like."""
CROWD_MIN: Final = 100
"""So many that are asked for once each are strange even when they look like words."""
_TRIES_MAX: Final = 2
"""A lookup is often two: one for each family of addresses."""
_CODED_SHARE: Final = 0.5
_LONG_LABEL: Final = 24
"""Longer than what people give to machines; tunnels fill labels up to 63."""
_CODE: Final = re.compile(r"(?=[a-z]*\d)[0-9a-f]{12,}|(?=[a-z0-9]*\d)(?=[a-z0-9]*[a-z])[a-z0-9]{16,}")


def find_coded_zones(lookups: Mapping[DomainName, int], is_shared: SharedCheck) -> tuple[DomainName, ...]:
    """The zones below which ``lookups`` (names that nobody connected to, with how often) look like carried data.

    A zone is what one owner has: the outermost name that is not shared with others.
    """
    below: dict[DomainName, list[DomainName]] = defaultdict(list)
    for name, tries in lookups.items():
        zone = _zone_of(name, is_shared)
        if zone is not None and tries <= _TRIES_MAX:
            below[zone].append(name)
    return tuple(sorted(zone for zone, names in below.items() if _looks_carried(zone, names)))


def _zone_of(name: DomainName, is_shared: SharedCheck) -> DomainName | None:
    zones = [parent for parent in parents_of(name) if not is_shared(parent)]
    return DomainName(zones[-1]) if zones else None


def _looks_carried(zone: DomainName, names: Iterable[DomainName]) -> bool:
    parts = [name.removesuffix(f".{zone}") for name in names]
    coded = sum(any(_is_coded(label) for label in part.split(".")) for part in parts)
    return len(parts) >= CROWD_MIN or (len(parts) >= NAMES_MIN and coded >= _CODED_SHARE * len(parts))


def _is_coded(label: str) -> bool:
    return len(label) >= _LONG_LABEL or _CODE.fullmatch(label) is not None
