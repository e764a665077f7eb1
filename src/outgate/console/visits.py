"""What a page knows of its request, and the pages' common answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outgate.api.bodies import read_body
from outgate.api.context import services_of
from outgate.clock import wall_ms
from outgate.console.permissions import ApiRoute, is_permitted
from outgate.console.templates import render_template
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.console_sessions import Session
from outgate.control.health import observe_health
from outgate.control.services import Services
from outgate.errors import InvalidValueError

_FIELDS_MAX: Final = 100
SEE_OTHER: Final = 303
"""After a form: the browser fetches the next page, and reloading that does not send the form again."""
FRAGMENT: Final = "x-outgate-fragment"
"""Sent by the console's script: it wants the part of the page that changes, not the page."""

Form = Mapping[str, str]
"""The first value of each field. Line ends are those of the text itself, not of the form's encoding."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in. ``form`` is empty unless something was posted."""

    request: Request
    services: Services
    session: Session
    now_ms: int
    form: Form = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        """Whose key this session began with, and what it may do."""
        return self.session.caller

    @property
    def call(self) -> Call:
        """A change made by this request."""
        return Call(self.caller, self.now_ms)

    @property
    def wants_fragment(self) -> bool:
        """Whether only the part that changes is wanted."""
        return FRAGMENT in self.request.headers

    def may(self, route: ApiRoute) -> bool:
        """Whether the key may do what ``route`` of the API does."""
        return is_permitted(self.caller, route)

    def path(self, name: str) -> str:
        """The part of the path that the route calls ``name``."""
        value: str = self.request.path_params[name]
        return value

    def query(self, name: str) -> str:
        """A parameter of the query, cut to what any of ours can be; empty when it is absent."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()[:256]

    def number(self, name: str, *, first: int = 1, last: int = 2**53) -> int | None:
        """A parameter that is a whole number; None when it is absent, or none of these."""
        text = self.query(name)
        is_number = text.isascii() and text.isdigit() and len(text) <= 16
        return int(text) if is_number and first <= int(text) <= last else None

    async def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """The page of that template, around which stands who is signed in and whether policies are enforced."""
        health = await observe_health(self.services, self.now_ms)
        shared = {"session": self.session, "path": self.request.url.path, "health": health, "now_ms": self.now_ms}
        return HTMLResponse(render_template(template, **shared, **values), status)

    def fragment(self, template: str, **values: Any) -> Response:
        """A part of a page."""
        return HTMLResponse(render_template(template, session=self.session, **values))


def lead_to(place: str, **query: str) -> Response:
    """The answer to a form: go on there."""
    return RedirectResponse(f"{place}?{urlencode(query)}" if query else place, SEE_OTHER)


async def read_form(request: Request) -> Form:
    """The posted form. Raises BodyTooLargeError, and InvalidValueError when it is none."""
    body = await read_body(request, services_of(request).settings.body_bytes_max)
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:
        raise InvalidValueError("The form cannot be read; load the page again.") from None
    return {name: values[0].replace("\r\n", "\n").replace("\0", "") for name, values in fields.items()}


async def open_visit(request: Request, session: Session) -> Visit:
    """The visit of a request, with its form if it posts one. Raises what :func:`read_form` raises."""
    form: Form = await read_form(request) if request.method == "POST" else {}
    return Visit(request, services_of(request), session, wall_ms(), form)
