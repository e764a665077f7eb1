"""The hosts' interface, ``/internal/v1``: served on its own listeners, never on the public ones."""

from typing import Annotated, Final, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response

from outgate.api.bodies import read_body
from outgate.api.context import find_client_of, read_bearer, services_of, while_connected
from outgate.api.errors import install_error_handlers
from outgate.api.object_transfer import ObjectResponse
from outgate.api.responses import respond
from outgate.clock import monotonic_s, wall_ms
from outgate.control.authentication import authenticate_host
from outgate.control.blueprint_reading import take_build_log
from outgate.control.blueprints import blueprint_not_found
from outgate.control.configuration import REPORT_BYTES_MAX
from outgate.control.flows import take_flows
from outgate.control.hosts import WAIT_S_MAX, await_desired_state, take_report
from outgate.control.ids import IdPrefix, is_id
from outgate.control.object_transfers import open_stored
from outgate.control.objects import object_not_found
from outgate.errors import InvalidValueError
from outgate.model.desired import BuildLogPart, FlowBatch, HostReport
from outgate.model.measures import HostMeasures
from outgate.store.hosts import HostRow

_REPORT: Final = msgspec.json.Decoder(HostReport)
_LOG_PART: Final = msgspec.json.Decoder(BuildLogPart)
_FLOWS: Final = msgspec.json.Decoder(FlowBatch)
_MEASURES: Final = msgspec.json.Decoder(HostMeasures)

S = TypeVar("S", bound=msgspec.Struct)

router: Final = APIRouter(prefix="/internal/v1")


async def _authenticated_host(request: Request) -> HostRow:
    return await authenticate_host(services_of(request), read_bearer(request), find_client_of(request))


Host = Annotated[HostRow, Depends(_authenticated_host)]


@router.get("/desired-state")
async def desired_state(
    request: Request,
    host: Host,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=WAIT_S_MAX)] = 0.0,
) -> Response:
    """What changed for the host after ``after``; waits up to ``wait_s`` for a change."""
    work = await_desired_state(services_of(request), host, after=after, wait_s=wait_s, now_ms=wall_ms())
    return respond(await while_connected(request, work))


@router.post("/report")
async def report(request: Request, host: Host) -> Response:
    """What the host enforces, and where its devboxes are."""
    said = await _read(request, _REPORT, "host report")
    await take_report(services_of(request), host, said, wall_ms())
    return Response(b"{}", media_type="application/json")


@router.post("/flows")
async def store_flows(request: Request, host: Host) -> Response:
    """What was decided on the host since its last batch."""
    await take_flows(services_of(request), host, await _read(request, _FLOWS, "batch of flow records"))
    return Response(b"{}", media_type="application/json")


@router.post("/measures")
async def take_measures(request: Request, host: Host) -> Response:
    """What the host counted since its agent started."""
    measures = await _read(request, _MEASURES, "measures of a host")
    services_of(request).measurements.take(host.id, measures, monotonic_s())
    return Response(b"{}", media_type="application/json")


@router.get("/objects/{id}")
async def read_object(request: Request, host: Host, id: str) -> Response:  # noqa: A002 - as on the public routes
    """The bytes of a READ_ONLY object, for a devbox or a build of the host that mounts it."""
    del host  # any host may run any account's devboxes
    if not is_id(IdPrefix.OBJECT, id):
        raise object_not_found(id)
    return ObjectResponse(await open_stored(services_of(request), id))


@router.post("/builds/{id}/log")
async def store_build_log(request: Request, host: Host, id: str) -> Response:  # noqa: A002 - as on the public routes
    """Lines of the log of one of the host's builds."""
    if not is_id(IdPrefix.BLUEPRINT, id):
        raise blueprint_not_found(id)
    part = await _read(request, _LOG_PART, "part of a build's log")
    await take_build_log(services_of(request), host, id, part)
    return Response(b"{}", media_type="application/json")


async def _read(request: Request, decoder: msgspec.json.Decoder[S], what: str) -> S:
    """The body as what ``decoder`` makes of it. Raises InvalidValueError, BodyTooLargeError."""
    try:
        return decoder.decode(await read_body(request, REPORT_BYTES_MAX))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"This is no {what}: {error}.") from None


def create_internal_app() -> FastAPI:
    """The application behind the internal listeners, without services yet."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(router)
    install_error_handlers(app)
    return app
