"""Bodies of the secret routes."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.control.secrets import VALUE_LENGTH_MAX
from outgate.control.texts import NAME_LENGTH_MAX, TEXT_PATTERN
from outgate.control.variables import VARIABLE_PATTERN


# The constraints below are for the OpenAPI document only: control judges, with better words. Control counts bytes;
# four of them are the most that one character takes.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


SecretName = Annotated[str, _said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=VARIABLE_PATTERN)]
SecretValue = Annotated[str, Field(repr=False), _said(maxLength=VALUE_LENGTH_MAX, pattern=TEXT_PATTERN)]


class SecretCreateParams(BaseModel):
    """A new secret. Its value is never answered."""

    model_config = BODY_CONFIG

    name: SecretName
    value: SecretValue


class SecretUpdateParams(BaseModel):
    """Another value."""

    model_config = BODY_CONFIG

    value: SecretValue
