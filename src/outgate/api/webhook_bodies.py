"""Bodies of the webhook routes, and what they mean to control."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from outgate.api.bodies import BODY_CONFIG, as_whole
from outgate.api.field_types import said
from outgate.control.ids import IdPrefix, id_pattern
from outgate.control.texts import DESCRIPTION_LENGTH_MAX, TEXT_PATTERN
from outgate.control.webhook_input import FILTERS_MAX, WebhookInput
from outgate.control.webhooks import OVERLAP_S, OVERLAP_S_MAX
from outgate.model.webhooks import SUBSCRIBABLE, URL_LENGTH_MAX

Url = Annotated[
    str,
    said(
        maxLength=URL_LENGTH_MAX,
        pattern="^https://([a-z0-9]{1,20}\\.){1,4}[a-z]{2,10}(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~-]*)*$",
        examples=["https://hooks.example.com/outgate"],
    ),
]
Description = Annotated[str, said(maxLength=DESCRIPTION_LENGTH_MAX, pattern=TEXT_PATTERN)]
Event = Annotated[str, said(enum=[event.value for event in SUBSCRIBABLE])]
PolicyId = Annotated[str, said(pattern=id_pattern(IdPrefix.POLICY))]
DevboxId = Annotated[str, said(pattern=id_pattern(IdPrefix.DEVBOX))]
Events = Annotated[list[Event], said(minItems=1)]
PolicyIds = Annotated[list[PolicyId], said(maxItems=FILTERS_MAX)]
DevboxIds = Annotated[list[DevboxId], said(maxItems=FILTERS_MAX)]
# The bounds come before the validator: behind it, they would not reach the OpenAPI document.
OverlapSeconds = Annotated[int, Field(ge=0, le=OVERLAP_S_MAX), BeforeValidator(as_whole)]


class WebhookUpdateParams(BaseModel):
    """Absent and null keep, a value replaces. Empty ``policy_ids`` and ``devbox_ids`` mean all."""

    model_config = BODY_CONFIG

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    policy_ids: PolicyIds | None = None
    devbox_ids: DevboxIds | None = None
    enabled: bool | None = None

    def to_input(self) -> WebhookInput:
        """The value control judges."""
        return WebhookInput(
            url=self.url,
            description=self.description,
            events=self.events,
            policy_ids=self.policy_ids,
            devbox_ids=self.devbox_ids,
            enabled=self.enabled,
        )


class WebhookCreateParams(WebhookUpdateParams):
    """A new webhook."""

    url: Url
    events: Events


class WebhookSecretParams(BaseModel):
    """For how long the secret that is replaced goes on signing, too."""

    model_config = BODY_CONFIG

    overlap_seconds: OverlapSeconds = OVERLAP_S
