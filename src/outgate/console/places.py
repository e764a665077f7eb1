"""A place of the console: a path, what is done there, and what everything there has in common.

Every answer carries the same headers, refusals and defects included: scripts, styles and images come from here alone,
forms go here alone, nobody frames it, nobody keeps it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Message, Receive, Scope, Send

from outgate.api.access import CALLER, request_id_of
from outgate.api.context import services_of
from outgate.api.errors import render_error
from outgate.clock import wall_ms
from outgate.console.cookies import Cookie, read_cookie
from outgate.console.origins import is_foreign, is_led_here
from outgate.console.permissions import ApiRoute, check_permission
from outgate.console.templates import render_template
from outgate.console.visits import FRAGMENT, Visit, lead_to, open_visit
from outgate.control.console_sessions import Session, find_session, is_form_token
from outgate.control.errors import ForbiddenError
from outgate.errors import OutgateError

HOME: Final = "/console/policies"
SIGN_IN: Final = "/console/sign-in"
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_READING: Final = frozenset({"GET", "HEAD"})
_TITLES: Final = {
    400: "That is not possible",
    403: "This is not allowed",
    404: "Not found",
    405: "Not here",
    409: "That is taken",
    413: "Too much",
    429: "Too many attempts",
    503: "Not just now",
}

_log: Final = structlog.get_logger(__name__)

PublicHandler = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Action:
    """What a signed-in visitor does at a place. ``api`` is the method and route of the API that does the same: a
    restricted key may do the one exactly when it may do the other. None where there is nothing to restrict.
    """

    handle: Handler
    api: ApiRoute | None


@dataclass(frozen=True, slots=True)
class Place:
    """An ASGI application for one path."""

    get: Action | PublicHandler | None = None
    post: Action | PublicHandler | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send_secured)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._dispatch(request)
        except OutgateError as error:
            return await show_error(request, error)
        except Exception as error:  # noqa: BLE001 - any defect gets a page with the headers that every answer has
            _log.error("defect", route=_route_of(request), request_id=request_id_of(request.scope), exc_info=error)
            return _render_error(
                500, "Outgate made a mistake", "Its log has the details, near the number below.", request
            )

    async def _dispatch(self, request: Request) -> Response:
        wanted = self.get if request.method in _READING else self.post if request.method == "POST" else None
        if wanted is None:
            return self._refuse_method(request)
        if not isinstance(wanted, Action):
            return await wanted(request)
        session = await find_own_session(request)
        if session is None:
            return _ask_to_sign_in(request)
        request.scope[CALLER] = session.caller
        if wanted.api is not None:
            check_permission(session.caller, wanted.api)
        visit = await open_visit(request, session)
        if request.method == "POST":
            check_form(request, visit.form.get(FORM_TOKEN, ""), session.token)
        return await wanted.handle(visit)

    def _refuse_method(self, request: Request) -> Response:
        if self.get is None and self.post is None:
            return _render_error(404, "Not found", "There is no such page in this console.", request)
        allowed = [name for name, there in (("GET, HEAD", self.get), ("POST", self.post)) if there is not None]
        refusal = _render_error(405, "Not here", f"This place takes {' and '.join(allowed)}.", request)
        refusal.headers["allow"] = ", ".join(allowed)
        return refusal


async def find_own_session(request: Request) -> Session | None:
    """The session of whoever asks, if there is one."""
    return await find_session(services_of(request), read_cookie(request, Cookie.SESSION), wall_ms())


def check_form(request: Request, shown: str, token: str) -> None:
    """Raise ForbiddenError unless the form came from a page that was made for the holder of ``token``."""
    if is_foreign(request):
        raise ForbiddenError("The form came from a page of another site.")
    if not token or not is_form_token(shown, token):
        raise ForbiddenError("The form is out of date: go back, load the page again, and send it anew.")


def _ask_to_sign_in(request: Request) -> Response:
    if FRAGMENT in request.headers or "text/event-stream" in request.headers.get("accept", ""):
        return Response("signed out", 401, media_type="text/plain")
    if request.method not in _READING:
        return lead_to(SIGN_IN)
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if is_led_here(request):
        # The browser keeps the cookie back because another site led here. A page of ours that leads on gets it.
        return HTMLResponse(render_template("continue.html", place=asked))
    return lead_to(f"{SIGN_IN}?next={quote(asked, safe='')}")


async def show_error(request: Request, error: OutgateError) -> Response:
    """The page for an error, with the status that the API gives it."""
    answer = render_error(error, request_id_of(request.scope))
    title = _TITLES.get(answer.status_code, "Something went wrong")
    response = _render_error(answer.status_code, title, error.message, request)
    if "retry-after" in answer.headers:
        response.headers["retry-after"] = answer.headers["retry-after"]
    return response


def _render_error(status: int, title: str, message: str, request: Request) -> Response:
    number = request_id_of(request.scope)
    page = render_template("error.html", title=title, message=message, number=number, home=HOME)
    return HTMLResponse(page, status)


def _route_of(request: Request) -> str:
    return f"{request.method} {request.url.path[:200]}"
