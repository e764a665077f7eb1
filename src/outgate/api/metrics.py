"""``GET /metrics``: for Prometheus, in its text format or as OpenMetrics.

Numbers of a whole installation are the operator's and no account's: they are read with the token that is set for it,
or, where none is set, on this host alone.
"""

from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from outgate.api.context import find_client_of, read_bearer, services_of
from outgate.clock import wall_ms
from outgate.control.authentication import check_metrics_token
from outgate.control.errors import ForbiddenError
from outgate.control.exposition import expose
from outgate.core.clients import is_loopback

router: Final = APIRouter(tags=["health"])

_PASSED_ON: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""What says that a proxy on this host asks for somebody else."""


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Everything that is counted, as it is now."""
    services = services_of(request)
    token = services.settings.metrics_token
    if token is not None:
        await check_metrics_token(services, read_bearer(request), token, find_client_of(request))
    elif not _is_local(request):
        raise ForbiddenError("Metrics are read on this host alone; set OUTGATE_METRICS_TOKEN to read them elsewhere.")
    exposition = await expose(services, wall_ms())
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (ValueError, TypeError):  # a version that is no number
        encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return Response(encode(exposition), media_type=content_type)


def _is_local(request: Request) -> bool:
    peer = "" if request.client is None else request.client.host
    is_passed_on = any(name in request.headers for name in _PASSED_ON)
    return not is_passed_on and (not peer or is_loopback(peer))
