"""What a route knows of its request: who asks, with which services; and the reading of its body."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from outgate.api.access import CALLER
from outgate.api.bodies import parse_body, read_body
from outgate.api.errors import ClientGoneError
from outgate.api.scopes import find_requirements
from outgate.clock import wall_ms
from outgate.control.authentication import authenticate
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.errors import UnauthorizedError
from outgate.control.repeats import make_request_key
from outgate.control.scopes import check_caller
from outgate.control.services import Services
from outgate.core.clients import find_client

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")

_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One authenticated request."""

    services: Services
    caller: Caller
    request: Request

    async def read(self, model: type[B], *, bytes_max: int | None = None) -> tuple[B, Call]:
        """The body, and the call it makes; longer than others if a route says so.

        Raises InvalidValueError, BodyTooLargeError.
        """
        body = await read_body(self.request, bytes_max or self.services.settings.body_bytes_max)
        return parse_body(model, body), self._call(body)

    async def read_nothing(self) -> Call:
        """The call of a route without a body. Clients send an empty one, or ``{}``: neither means anything."""
        await read_body(self.request, self.services.settings.body_bytes_max)
        return self._call(b"")

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns; see :func:`while_connected`."""
        return await while_connected(self.request, work)

    def _call(self, body: bytes) -> Call:
        key = self.request.headers.get("x-request-id")
        if not key:
            return Call(self.caller, wall_ms())
        scope = self.request.scope
        named = make_request_key(self.caller.account_id, scope["method"], scope["path"], key, body)
        return Call(self.caller, wall_ms(), named)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns. It is cancelled, and its waiter freed, when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_await_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("The client closed the connection while waiting.")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _await_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def read_bearer(request: Request) -> str:
    """The token of the Authorization header (RFC 6750 §2.1). Raises UnauthorizedError."""
    header = request.headers.get("authorization", "")
    token = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
    if not token:
        raise UnauthorizedError("This needs an API key: send 'Authorization: Bearer <key>'.")
    return token


def find_client_of(request: Request) -> str:
    """Who asks, as far as limits are concerned."""
    peer = "" if request.client is None else request.client.host
    forwarded_for = ",".join(request.headers.getlist("x-forwarded-for"))
    return find_client(peer, forwarded_for, services_of(request).settings.proxies)


def services_of(request: Request) -> Services:
    """The services of the application that serves ``request``."""
    services: Services = request.app.state.services
    return services


async def _authenticated(request: Request) -> RequestContext:
    services = services_of(request)
    caller = await authenticate(services, read_bearer(request), find_client_of(request))
    request.scope[CALLER] = caller
    check_caller(caller, find_requirements(request.method, request.scope["route"].path))
    return RequestContext(services, caller, request)


Context = Annotated[RequestContext, Depends(_authenticated)]
"""A route parameter of this type makes the route answer 401, or 403 to a restricted key, before anything else."""
