"""The public application."""

from typing import Final

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response

from outgate.api import (
    accounts,
    api_keys,
    blueprints,
    devboxes,
    evictions,
    executions,
    explain,
    files,
    flows,
    gateway_configs,
    gateway_tokens,
    health,
    logs,
    mcp_configs,
    metrics,
    network_policies,
    object_transfer,
    objects,
    policy_revisions,
    pty,
    secrets,
    simulate,
    snapshots,
    ssh_keys,
    suggest,
    tunnels,
    webhooks,
)
from outgate.api.access import AccessLog
from outgate.api.errors import install_error_handlers
from outgate.api.openapi import make_document

_ROUTERS: Final[tuple[APIRouter, ...]] = (
    network_policies.router,
    policy_revisions.router,
    explain.router,
    simulate.router,
    suggest.router,
    flows.router,
    # Before the devboxes', whose "/{id}" would take "evictions" and "disk_snapshots" for ids.
    evictions.router,
    snapshots.router,
    devboxes.router,
    executions.router,
    files.router,
    logs.router,
    tunnels.router,
    ssh_keys.router,
    pty.router,
    blueprints.router,
    objects.router,
    object_transfer.router,
    secrets.router,
    gateway_configs.router,
    mcp_configs.router,
    gateway_tokens.router,
    api_keys.router,
    webhooks.router,
    accounts.router,
    health.router,
    metrics.router,
)


def create_app() -> FastAPI:
    """The public application, without services yet; with its OpenAPI document at ``/openapi.json``."""
    # No interactive docs: their pages load scripts from elsewhere.
    app = FastAPI(title="Outgate", openapi_url=None, redirect_slashes=False)
    for router in _ROUTERS:
        app.include_router(router)
    description = make_document(app)
    document = msgspec.json.encode(description)
    app.state.paths = description["paths"]

    async def openapi(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    app.add_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    install_error_handlers(app)
    app.add_middleware(AccessLog)
    return app
