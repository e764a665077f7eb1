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


class HostHealthView(msgspec.Struct, frozen=True):
    """One host. ``revision_enforced`` lags behind ``revision_wanted`` while something that concerns it is not in force.

    ``report_age_ms``: since it was last heard of, to within some seconds; null: never.
    """

    name: str
    enforcing: bool
    revision_wanted: int
    revision_enforced: int
    report_age_ms: int | None


class HealthView(msgspec.Struct, frozen=True):
    """``message`` says what is wrong, hosts that do not enforce included; it is empty when nothing is.

    ``time_ms`` is the api's clock, Unix milliseconds.
    """

    status: HealthStatus
    message: str
    warnings: tuple[WarningView, ...]
    hosts: tuple[HostHealthView, ...]
    time_ms: int


@router.get("/healthz", operation_id="getHealth", summary="Is it alive", openapi_extra=describe_public(HealthView))
async def healthz(request: Request) -> Response:
    """200 whenever the api answers; the body says whether policies are enforced."""
    now_ms = wall_ms()
    return respond(_view(await observe_health(services_of(request), now_ms), now_ms))


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Is it enforcing",
    openapi_extra=describe_public(HealthView, has_503=True),
)
async def readyz(request: Request) -> Response:
    """200 when at least one host enforces, else 503."""
    now_ms = wall_ms()
    health = await observe_health(services_of(request), now_ms)
    response = respond(_view(health, now_ms))
    response.status_code = 503 if health.problem is not None else 200
    return response


def _view(health: Health, now_ms: int) -> HealthView:
    problems = [health.problem, *(host.problem for host in health.hosts if health.problem is None)]
    return HealthView(
        status=HealthStatus.ENFORCING if health.problem is None else HealthStatus.NOT_ENFORCING,
        message="; ".join(problem for problem in problems if problem is not None),
        warnings=tuple(
            WarningView(host.name, warning.code, warning.text) for host in health.hosts for warning in host.warnings
        ),
        hosts=tuple(
            HostHealthView(
                name=host.name,
                enforcing=host.problem is None,
                revision_wanted=host.wanted,
                revision_enforced=host.enforced,
                report_age_ms=max(0, now_ms - host.seen_ms) if host.seen_ms else None,
            )
            for host in health.hosts
        ),
        time_ms=now_ms,
    )
