"""What a restricted API key may touch. The names are those of the wire."""

from collections.abc import Mapping
from enum import StrEnum


class ResourceType(StrEnum):
    """What a scope is about. Network policies belong to devboxes, secrets and configurations to the account."""

    DEVBOXES = "RESOURCE_TYPE_DEVBOXES"
    BLUEPRINTS = "RESOURCE_TYPE_BLUEPRINTS"
    SNAPSHOTS = "RESOURCE_TYPE_SNAPSHOTS"
    OBJECTS = "RESOURCE_TYPE_OBJECTS"
    ACCOUNT = "RESOURCE_TYPE_ACCOUNT"


class AccessLevel(StrEnum):
    """How far; each level holds the ones before it."""

    NONE = "ACCESS_LEVEL_NONE"
    READ = "ACCESS_LEVEL_READ"
    WRITE = "ACCESS_LEVEL_WRITE"


Scopes = Mapping[ResourceType, AccessLevel]
"""A type that is missing counts as NONE."""
