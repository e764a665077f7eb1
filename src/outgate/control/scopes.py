"""What a restricted key may do: a level of access to each type of resource."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from outgate.control.callers import Caller
from outgate.control.errors import ForbiddenError
from outgate.errors import InvalidValueError
from outgate.model.scopes import AccessLevel, ResourceType, Scopes

_ORDER: Final = (AccessLevel.NONE, AccessLevel.READ, AccessLevel.WRITE)
_RESOURCES: Final = frozenset[str](ResourceType)
_LEVELS: Final = frozenset[str](AccessLevel)


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one request needs of a key, or a key is given: a level of access to one type of resource."""

    resource: ResourceType
    level: AccessLevel


def parse_scopes(given: Iterable[Requirement]) -> Scopes:
    """``given`` as scopes. Raises InvalidValueError when they allow nothing, and for one that comes twice."""
    scopes: dict[ResourceType, AccessLevel] = {}
    for index, entry in enumerate(given):
        if entry.resource in scopes:
            message = f"{entry.resource} was given before; name each resource type once."
            raise InvalidValueError(message, field=f"scopes[{index}].resource_type")
        scopes[entry.resource] = entry.level
    if all(level is AccessLevel.NONE for level in scopes.values()):
        message = "A restricted key needs a scope that lets it do something; create an API key for one without limits."
        raise InvalidValueError(message, field="scopes")
    return scopes


def encode_scopes(scopes: Scopes) -> str:
    """``scopes`` as they are stored."""
    return json.dumps(scopes)


def decode_scopes(text: str) -> Scopes:
    """Stored scopes. A type or level of a newer version counts as nothing: less is always safe."""
    known: dict[ResourceType, AccessLevel] = {}
    stored: Mapping[str, str] = json.loads(text)
    for resource, level in stored.items():
        if resource in _RESOURCES and level in _LEVELS:
            known[ResourceType(resource)] = AccessLevel(level)
    return known


def check_caller(caller: Caller, requirements: Iterable[Requirement] | None) -> None:
    """Raise ForbiddenError unless the caller's key may do what needs ``requirements``; None: only full keys may."""
    if caller.scopes is None:
        return
    if requirements is None:
        raise ForbiddenError("A restricted key may not do this; use an API key without restrictions.")
    for requirement in requirements:
        if not _covers(caller.scopes, requirement):
            raise ForbiddenError(
                f"This key is restricted: it needs {requirement.level} on {requirement.resource} for this."
            )


def check_no_wider(caller: Caller, scopes: Scopes) -> None:
    """Raise ForbiddenError when ``scopes`` hold something that the caller's own key may not do."""
    for resource, level in scopes.items():
        if caller.scopes is not None and not _covers(caller.scopes, Requirement(resource, level)):
            raise ForbiddenError(f"This key is restricted: it cannot hand on {level} on {resource}, which it lacks.")


def _covers(scopes: Scopes, requirement: Requirement) -> bool:
    has = scopes.get(requirement.resource, AccessLevel.NONE)
    return _ORDER.index(has) >= _ORDER.index(requirement.level)
