"""``/v1/secrets``: by name, and by id."""

from typing import Final

from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.parameters import Limit
from outgate.api.responses import respond
from outgate.api.secret_bodies import SecretCreateParams, SecretUpdateParams
from outgate.api.secret_views import SecretListView, SecretView, view_secret, view_secrets
from outgate.control.secrets import (
    SecretReference,
    create_secret,
    delete_secret,
    get_secret,
    page_secrets,
    update_secret,
)

router: Final = APIRouter(prefix="/v1/secrets", tags=["secrets"])


@router.post(
    "",
    operation_id="createSecret",
    summary="Create a secret",
    openapi_extra=describe(SecretView, body=SecretCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Names are unique in an account; a taken one is refused with 400."""
    given, call = await context.read(SecretCreateParams)
    return respond(view_secret(await create_secret(context.services, call, given.name, given.value)))


@router.get("", operation_id="listSecrets", summary="List secrets", openapi_extra=describe(SecretListView))
async def list_all(context: Context, limit: Limit = 20) -> Response:
    """Newest first, without values."""
    return respond(view_secrets(await page_secrets(context.services, context.caller, limit=limit)))


# The routes by id come first: "id" could be a name, too.
@router.get(
    "/id/{id}",
    operation_id="getSecretById",
    summary="Read a secret by its id",
    openapi_extra=describe(SecretView, errors=[404]),
)
async def get_by_id(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Without its value."""
    return respond(view_secret(await get_secret(context.services, context.caller, SecretReference(id=id))))


@router.post(
    "/id/{id}/update",
    operation_id="updateSecretById",
    summary="Change a secret's value by its id",
    openapi_extra=describe(SecretView, body=SecretUpdateParams, errors=[404, 409]),
)
async def update_by_id(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Devboxes get the new value when they start or resume."""
    return await _update(context, SecretReference(id=id))


@router.post(
    "/id/{id}/delete",
    operation_id="deleteSecretById",
    summary="Delete a secret by its id",
    openapi_extra=describe(SecretView, errors=[404, 409, 413]),
)
async def delete_by_id(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its value is gone when this is answered."""
    return await _delete(context, SecretReference(id=id))


@router.get(
    "/{name}",
    operation_id="getSecret",
    summary="Read a secret",
    openapi_extra=describe(SecretView, errors=[404]),
)
async def get(context: Context, name: str) -> Response:
    """Without its value."""
    return respond(view_secret(await get_secret(context.services, context.caller, SecretReference(name=name))))


@router.post(
    "/{name}",
    operation_id="updateSecret",
    summary="Change a secret's value",
    openapi_extra=describe(SecretView, body=SecretUpdateParams, errors=[404, 409]),
)
async def update(context: Context, name: str) -> Response:
    """Devboxes get the new value when they start or resume."""
    return await _update(context, SecretReference(name=name))


@router.post(
    "/{name}/delete",
    operation_id="deleteSecret",
    summary="Delete a secret",
    openapi_extra=describe(SecretView, errors=[404, 409, 413]),
)
async def delete(context: Context, name: str) -> Response:
    """Its value is gone when this is answered."""
    return await _delete(context, SecretReference(name=name))


async def _update(context: Context, which: SecretReference) -> Response:
    given, call = await context.read(SecretUpdateParams)
    return respond(view_secret(await update_secret(context.services, call, which, given.value)))


async def _delete(context: Context, which: SecretReference) -> Response:
    return respond(view_secret(await delete_secret(context.services, await context.read_nothing(), which)))
