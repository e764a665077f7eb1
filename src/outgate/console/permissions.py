"""What a visitor may do: what the API would let the same key do."""

from enum import Enum

from outgate.api.scopes import find_requirements
from outgate.control.callers import Caller
from outgate.control.errors import ForbiddenError
from outgate.control.scopes import check_caller


class ApiRoute(Enum):
    """Method and route of the API that does the same as a page or form of the console."""

    LIST_POLICIES = ("GET", "/v1/network-policies")
    READ_POLICY = ("GET", "/v1/network-policies/{id}")
    CREATE_POLICY = ("POST", "/v1/network-policies")
    UPDATE_POLICY = ("POST", "/v1/network-policies/{id}")
    DELETE_POLICY = ("POST", "/v1/network-policies/{id}/delete")
    SIMULATE_POLICY = ("POST", "/v1/network-policies/{id}/simulate")
    SUGGEST_POLICY = ("POST", "/v1/network-policies/{id}/suggest")
    LIST_REVISIONS = ("GET", "/v1/network-policies/{id}/revisions")
    RESTORE_POLICY = ("POST", "/v1/network-policies/{id}/restore")
    LIST_DEVBOXES = ("GET", "/v1/devboxes")
    READ_DEVBOX = ("GET", "/v1/devboxes/{id}")
    LIST_FLOWS = ("GET", "/v1/network-flows")
    STREAM_FLOWS = ("GET", "/v1/network-flows/stream")


def check_permission(caller: Caller, route: ApiRoute) -> None:
    """Raise ForbiddenError unless the caller's key may use ``route``."""
    check_caller(caller, find_requirements(*route.value))


def is_permitted(caller: Caller, route: ApiRoute) -> bool:
    """Whether the caller's key may use ``route``."""
    try:
        check_permission(caller, route)
    except ForbiddenError:
        return False
    return True
