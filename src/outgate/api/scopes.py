"""What each route needs of a restricted key. A route that no line here speaks of takes full keys only."""

from collections.abc import Sequence
from typing import Final

from outgate.control.scopes import Requirement
from outgate.model.scopes import AccessLevel, ResourceType

_READ, _WRITE = AccessLevel.READ, AccessLevel.WRITE

_WEBHOOKS: Final = "/v1/webhooks"
# The first prefix that fits counts, so longer ones come before theirs.
_RESOURCES: Final[tuple[tuple[str, ResourceType], ...]] = (
    ("/v1/devboxes/disk_snapshots", ResourceType.SNAPSHOTS),
    ("/v1/devboxes", ResourceType.DEVBOXES),
    ("/v1/network-policies", ResourceType.DEVBOXES),
    ("/v1/network-flows", ResourceType.DEVBOXES),
    ("/v1/blueprints", ResourceType.BLUEPRINTS),
    ("/v1/objects", ResourceType.OBJECTS),
    ("/v1/secrets", ResourceType.ACCOUNT),
    ("/v1/gateway-configs", ResourceType.ACCOUNT),
    ("/v1/mcp-configs", ResourceType.ACCOUNT),
    ("/v1/accounts", ResourceType.ACCOUNT),
    (_WEBHOOKS, ResourceType.ACCOUNT),
    ("/v1/restricted_keys", ResourceType.ACCOUNT),
)
_SNAPSHOTTING: Final = ("/snapshot_disk", "/snapshot_disk_async")
# They are posted because they have a body, and change nothing.
_READING_POSTS: Final = (
    "/wait_for_status",
    "/explain",
    "/simulate",
    "/suggest",
    "/read_file_contents",
    "/download_file",
    "/preview",
)


def find_requirements(method: str, path: str) -> Sequence[Requirement] | None:
    """What a request of this method and route (``/v1/devboxes/{id}``) needs; None: a key without restrictions."""
    resource = next((found for prefix, found in _RESOURCES if path == prefix or path.startswith(f"{prefix}/")), None)
    if resource is None:
        return None
    is_reading = method in ("GET", "HEAD") or (method == "POST" and path.endswith(_READING_POSTS))
    needed = Requirement(resource, _READ if is_reading else _WRITE)
    if path.startswith("/v1/devboxes/{") and path.endswith(_SNAPSHOTTING):
        return (needed, Requirement(ResourceType.SNAPSHOTS, _WRITE))
    if resource is ResourceType.ACCOUNT and path.startswith(_WEBHOOKS):
        # A webhook is told what devboxes do: no key may have that sent that may not read it.
        return (needed, Requirement(ResourceType.DEVBOXES, _READ))
    return (needed,)
