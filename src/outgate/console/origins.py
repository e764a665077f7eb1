"""Is a form's request from a page of ours? Asked before its token is looked at, which alone decides."""

from urllib.parse import urlsplit

from starlette.requests import Request

from outgate.console.cookies import is_proxy

_OWN_SITES = frozenset({"same-origin", "none"})


def is_foreign(request: Request) -> bool:
    """Whether the browser says that a page of another origin made the request.

    ``Sec-Fetch-Site`` is sent to places that the browser trusts: by TLS, and to localhost. ``Origin`` is
    ``null`` for our own pages, since they tell nobody where they are (Referrer-Policy), and so proves nothing then.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITES
    origin = request.headers.get("origin")
    if origin is None or origin == "null":
        return False
    own = request.headers.get("host", "")
    if is_proxy(request):
        own = request.headers.get("x-forwarded-host", own)
    return urlsplit(origin).netloc.lower() != own.strip().lower()


def is_led_here(request: Request) -> bool:
    """Whether a link on another site led here: the browser then keeps back the session's cookie (SameSite)."""
    return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def own_place(text: str) -> str | None:
    """``text`` if it is a path of the console, to which it is safe to lead a browser; else None."""
    if not text.isascii() or not text.isprintable() or "\\" in text or "//" in text.partition("?")[0]:
        return None
    parts = urlsplit(text)
    is_own = parts.path == "/console" or parts.path.startswith("/console/")
    return text if is_own and not parts.scheme and not parts.netloc and ".." not in parts.path else None
