"""The console's cookies: names that a browser guards where there is TLS, never readable by scripts, never sent along by
other sites.
"""

from enum import StrEnum
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from outgate.api.context import services_of
from outgate.core.clients import is_among, is_loopback

_API_LABEL: Final = "api"
"""Before the tunnel domain: the name under which the tunnel front serves the API with TLS."""


class Cookie(StrEnum):
    """What each is for."""

    SESSION = "outgate_session"
    SIGN_IN = "outgate_sign_in"
    """Binds the form in which the key is written to the browser that fetched it."""


_GUARDED: Final = {Cookie.SESSION: "__Host-outgate", Cookie.SIGN_IN: "__Host-outgate-sign-in"}
"""With this prefix browsers take a cookie only by TLS, for the whole host, and from the host itself (RFC 6265bis)."""


def is_by_tls(request: Request) -> bool:
    """Whether the browser asked by TLS: of this process, of a proxy that the settings name, or of the tunnel front."""
    if request.url.scheme == "https":
        return True
    peer = "" if request.client is None else request.client.host
    settings = services_of(request).settings
    domain = settings.context.tunnel_domain
    host = request.headers.get("host", "").partition(":")[0].lower()
    if domain is not None and host == f"{_API_LABEL}.{domain}" and is_loopback(peer):
        return True
    return is_proxy(request) and request.headers.get("x-forwarded-proto", "").strip().lower() == "https"


def is_proxy(request: Request) -> bool:
    """Whether the request came by a proxy that the settings name."""
    return request.client is not None and is_among(request.client.host, services_of(request).settings.proxies)


def read_cookie(request: Request, cookie: Cookie) -> str:
    """The cookie's value, or nothing. Where there is TLS, one that the browser did not guard counts for nothing."""
    return request.cookies.get(_name(request, cookie), "")


def set_cookie(request: Request, response: Response, cookie: Cookie, value: str) -> None:
    """Have the browser keep it until it is closed."""
    response.set_cookie(
        _name(request, cookie), value, path="/", secure=is_by_tls(request), httponly=True, samesite="strict"
    )


def drop_cookie(request: Request, response: Response, cookie: Cookie) -> None:
    """Have the browser forget it."""
    response.delete_cookie(
        _name(request, cookie), path="/", secure=is_by_tls(request), httponly=True, samesite="strict"
    )


def _name(request: Request, cookie: Cookie) -> str:
    return _GUARDED[cookie] if is_by_tls(request) else cookie.value
