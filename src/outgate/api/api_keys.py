"""``/v1/apikeys`` and ``/v1/restricted_keys``."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG, RULE_CONFIG, Whole
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.restricted_keys import CreatedKey, KeyInput, create_api_key
from outgate.control.scopes import Requirement, parse_scopes
from outgate.control.texts import NAME_LENGTH_MAX, NAME_PATTERN
from outgate.model.scopes import AccessLevel, ResourceType

router: Final = APIRouter(prefix="/v1", tags=["API keys"])


# The constraints below are for the OpenAPI document only: control judges, with better words.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


KeyName = Annotated[str, _said(maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
# The bounds keep it storable; whether it lies in the future is judged by the clock.
ExpiryTime = Annotated[Whole, Field(ge=0, le=2**53)]


class ApikeyCreateParams(BaseModel):
    """A new key. It never expires unless ``expires_at_ms``, in Unix milliseconds, says so."""

    model_config = BODY_CONFIG

    name: KeyName | None = None
    expires_at_ms: ExpiryTime | None = None


class ScopeEntry(BaseModel):
    """How far the key may go with one type of resource."""

    model_config = RULE_CONFIG

    resource_type: ResourceType
    access_level: AccessLevel

    def to_input(self) -> Requirement:
        """The value control judges."""
        return Requirement(self.resource_type, self.access_level)


class RestrictedKeyCreateParams(BaseModel):
    """A new key that may do what ``scopes`` say and nothing else."""

    model_config = BODY_CONFIG

    name: KeyName | None = None
    expires_at_ms: ExpiryTime | None = None
    scopes: Annotated[list[ScopeEntry], _said(minItems=1)]


class APIKeyCreatedView(msgspec.Struct, frozen=True):
    """The key: ``key_secret`` is what clients send. It is shown this once."""

    id: str
    name: str
    key_secret: str
    expires_at_ms: int | None


class ScopeEntryView(msgspec.Struct, frozen=True):
    """How far the key may go with one type of resource."""

    resource_type: ResourceType
    access_level: AccessLevel


class RestrictedKeyCreatedView(msgspec.Struct, frozen=True):
    """The restricted key: ``key_secret`` is what clients send. It is shown this once."""

    id: str
    name: str
    key_secret: str
    expires_at_ms: int | None
    scopes: tuple[ScopeEntryView, ...]


@router.post(
    "/apikeys",
    operation_id="createAPIKey",
    summary="Create an API key",
    openapi_extra=describe(APIKeyCreatedView, body=ApikeyCreateParams, is_body_optional=True, errors=[409]),
)
async def create(context: Context) -> Response:
    """Takes a key without restrictions."""
    given, call = await context.read(ApikeyCreateParams)
    made = await create_api_key(context.services, call, KeyInput(given.name or "", given.expires_at_ms))
    return respond(APIKeyCreatedView(made.row.id, made.row.name, made.api_key, made.row.expire_time_ms))


@router.post(
    "/restricted_keys",
    operation_id="createRestrictedKey",
    summary="Create a restricted API key",
    openapi_extra=describe(RestrictedKeyCreatedView, body=RestrictedKeyCreateParams, errors=[409]),
)
async def create_restricted(context: Context) -> Response:
    """A restricted key can hand on what it may do itself, if it may write to the account."""
    given, call = await context.read(RestrictedKeyCreateParams)
    scopes = parse_scopes(entry.to_input() for entry in given.scopes)
    made = await create_api_key(context.services, call, KeyInput(given.name or "", given.expires_at_ms, scopes))
    return respond(_view_restricted(made))


def _view_restricted(made: CreatedKey) -> RestrictedKeyCreatedView:
    scopes = (made.scopes or {}).items()
    return RestrictedKeyCreatedView(
        id=made.row.id,
        name=made.row.name,
        key_secret=made.api_key,
        expires_at_ms=made.row.expire_time_ms,
        scopes=tuple(ScopeEntryView(resource, level) for resource, level in scopes),
    )
