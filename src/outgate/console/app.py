"""The console's places, below ``/console`` of the public application."""

from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from outgate.console.devboxes import show_devbox, show_devboxes
from outgate.console.flows import show_flows, stream_flows
from outgate.console.health import show_health
from outgate.console.permissions import ApiRoute
from outgate.console.picture import show_picture
from outgate.console.places import HOME, SIGN_IN, Action, Place
from outgate.console.policies import ask_to_delete, delete, show_policies, show_policy
from outgate.console.policy_editor import show_editor, show_new, take_change, take_new
from outgate.console.policy_history import restore, show_history, show_revision
from outgate.console.sign_in import leave, show_sign_in, take_key
from outgate.console.suggestions import show_suggestions
from outgate.console.templates import ASSETS
from outgate.console.visits import Visit, lead_to
from outgate.control.errors import NotFoundError

_KEPT: Final = "public, max-age=31536000, immutable"


async def _go_home(_visit: Visit) -> Response:
    return lead_to(HOME)


async def _send_asset(request: Request) -> Response:
    asset = ASSETS.get(request.path_params["name"])
    if asset is None or asset.version != request.path_params["version"]:
        raise NotFoundError("There is no such file; load the page again.")
    return Response(asset.content, media_type=asset.media_type, headers={"cache-control": _KEPT})


_PLACES: Final = {
    "/console": Place(Action(_go_home, None)),
    SIGN_IN: Place(show_sign_in, take_key),
    "/console/sign-out": Place(post=Action(leave, None)),
    "/console/static/{version}/{name}": Place(_send_asset),
    HOME: Place(Action(show_policies, ApiRoute.LIST_POLICIES)),
    f"{HOME}/new": Place(Action(show_new, ApiRoute.CREATE_POLICY), Action(take_new, ApiRoute.CREATE_POLICY)),
    f"{HOME}/{{id}}": Place(Action(show_policy, ApiRoute.READ_POLICY)),
    # A key that may only read may look at what a change would do; saving asks for more.
    f"{HOME}/{{id}}/edit": Place(
        Action(show_editor, ApiRoute.SIMULATE_POLICY), Action(take_change, ApiRoute.SIMULATE_POLICY)
    ),
    f"{HOME}/{{id}}/suggestions": Place(Action(show_suggestions, ApiRoute.SUGGEST_POLICY)),
    f"{HOME}/{{id}}/delete": Place(
        Action(ask_to_delete, ApiRoute.DELETE_POLICY), Action(delete, ApiRoute.DELETE_POLICY)
    ),
    f"{HOME}/{{id}}/revisions": Place(Action(show_history, ApiRoute.LIST_REVISIONS)),
    f"{HOME}/{{id}}/revisions/{{revision}}": Place(
        Action(show_revision, ApiRoute.LIST_REVISIONS), Action(restore, ApiRoute.RESTORE_POLICY)
    ),
    "/console/devboxes": Place(Action(show_devboxes, ApiRoute.LIST_DEVBOXES)),
    "/console/devboxes/{id}": Place(Action(show_devbox, ApiRoute.READ_DEVBOX)),
    "/console/flows": Place(Action(show_flows, ApiRoute.LIST_FLOWS)),
    "/console/flows/stream": Place(Action(stream_flows, ApiRoute.STREAM_FLOWS)),
    "/console/picture": Place(Action(show_picture, ApiRoute.LIST_FLOWS)),
    "/console/health": Place(Action(show_health, None)),
    "/console/{rest:path}": Place(),
}


class _PlaceRoute(Route):
    """Tells which place it is, as FastAPI's own routes do: logs and metrics go by its template."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, child if match is Match.NONE else {**child, "route": self}


def add_console(app: FastAPI) -> None:
    """Serve the console below ``/console`` of ``app``. Its places are no part of the API's description."""
    app.router.routes.extend(_PlaceRoute(path, place, include_in_schema=False) for path, place in _PLACES.items())
