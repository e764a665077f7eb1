"""Signing in with an API key, and out."""

import secrets
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from outgate.api.context import find_client_of, services_of
from outgate.clock import wall_ms
from outgate.console.cookies import Cookie, drop_cookie, read_cookie, set_cookie
from outgate.console.origins import own_place
from outgate.console.places import FORM_TOKEN, HOME, SIGN_IN, check_form, find_own_session
from outgate.console.templates import render_template
from outgate.console.visits import Visit, lead_to, read_form
from outgate.control.console_sessions import make_form_token, sign_in, sign_out
from outgate.control.errors import ForbiddenError, TooManyAttemptsError, UnauthorizedError

_TOKEN_BYTES: Final = 32
_WRONG_KEY: Final = "This key is not valid: it was mistyped, revoked, or has expired."

_log: Final = structlog.get_logger(__name__)


async def show_sign_in(request: Request) -> Response:
    """The form for the key, or the way home for whoever is signed in."""
    if await find_own_session(request) is not None:
        return lead_to(own_place(request.query_params.get("next", "")) or HOME)
    return _render(request, request.query_params.get("next", ""))


async def take_key(request: Request) -> Response:
    """Begin a session. It has a token of its own, made now: whatever the browser sent along counts for nothing."""
    form = await read_form(request)
    place = form.get("next", "")
    try:
        check_form(request, form.get(FORM_TOKEN, ""), read_cookie(request, Cookie.SIGN_IN))
        key = form.get("api_key", "").strip()
        if not key:
            return _render(request, place, "Write an API key.", 400)
        services, client = services_of(request), find_client_of(request)
        token = await sign_in(services, key, client, wall_ms())
    except ForbiddenError as error:
        return _render(request, place, error.message, 403)
    except UnauthorizedError:
        return _render(request, place, _WRONG_KEY, 401)
    except TooManyAttemptsError as error:
        refusal = _render(request, place, error.message, 429)
        refusal.headers["retry-after"] = str(error.wait_s)
        return refusal
    _log.info("signed in to the console", client=client)
    # A session that this browser had before would be out of its reach.
    await sign_out(services, read_cookie(request, Cookie.SESSION))
    response = lead_to(own_place(place) or HOME)
    set_cookie(request, response, Cookie.SESSION, token)
    drop_cookie(request, response, Cookie.SIGN_IN)
    return response


async def leave(visit: Visit) -> Response:
    """End the session."""
    await sign_out(visit.services, visit.session.token)
    response = lead_to(SIGN_IN)
    drop_cookie(visit.request, response, Cookie.SESSION)
    return response


def _render(request: Request, place: str, problem: str = "", status: int = 200) -> Response:
    token = read_cookie(request, Cookie.SIGN_IN) or secrets.token_urlsafe(_TOKEN_BYTES)
    page = render_template(
        "sign_in.html", next=own_place(place) or "", problem=problem, form_token=make_form_token(token)
    )
    response = HTMLResponse(page, status)
    set_cookie(request, response, Cookie.SIGN_IN, token)
    return response
