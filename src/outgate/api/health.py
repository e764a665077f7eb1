"""``/healthz`` and ``/readyz``: for anybody, and saying what is wrong."""

from enum import StrEnum
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from outgate.api.context import services_of
from outgate.api.openapi import describe_public
from outgate.api.responses import respond
from outgate.clock import wall_ms
from outgate.control.health import Health, observe_health

router: Final = APIRouter(tags=["health"])


class HealthStatus(StrEnum):
    """Whether policies hold right now."""

    ENFORCING = "enforcing"
    NOT_ENFORCING = "not_enforcing"


class WarningView(msgspec.Struct, frozen=True):
    """A degraded state of a host, with advice; docs/warnings.md lists the codes."""

    host: str
    code: str
    text: str


class HealthView(msgspec.Struct, frozen=True):
    """``message`` says what is wrong, hosts that do not enforce included; it is empty when nothing is."""

    status: HealthStatus
    message: str
    warnings: tuple[WarningView, ...]


@router.get("/healthz", operation_id="getHealth", summary="Is it alive", openapi_extra=describe_public(HealthView))
async def healthz(request: Request) -> Response:
    """200 whenever the api answers; the body says whether policies are enforced."""
    return respond(_view(await _observe(request)))


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Is it enforcing",
    openapi_extra=describe_public(HealthView, has_503=True),
)
async def readyz(request: Request) -> Response:
    """200 when at least one host enforces, else 503."""
    health = await _observe(request)
    response = respond(_view(health))
    response.status_code = 503 if health.problem is not None else 200
    return response


async def _observe(request: Request) -> Health:
    return await observe_health(services_of(request), wall_ms())


def _view(health: Health) -> HealthView:
    problems = [health.problem, *(host.problem for host in health.hosts if health.problem is None)]
    return HealthView(
        status=HealthStatus.ENFORCING if health.problem is None else HealthStatus.NOT_ENFORCING,
        message="; ".join(problem for problem in problems if problem is not None),
        warnings=tuple(
            WarningView(host.name, warning.code, warning.text) for host in health.hosts for warning in host.warnings
        ),
    )
