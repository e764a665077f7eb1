"""What a caller says about a webhook, judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.client.webhook_post import refusal
from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.configuration import ApiSettings
from outgate.control.ids import IdPrefix, is_id
from outgate.control.texts import parse_text
from outgate.core.webhook_addresses import refuse_receiver
from outgate.errors import InvalidValueError
from outgate.model.webhooks import SUBSCRIBABLE, parse_webhook_url
from outgate.store.policies import find_policy
from outgate.store.webhooks import WebhookRow

FILTERS_MAX: Final = 100
"""Policies, and devboxes, that one webhook may name."""
_LIST: Final = msgspec.json.Decoder(tuple[str, ...])


@dataclass(frozen=True, slots=True)
class WebhookInput:
    """A create or update body, of the right types and not yet judged. None: absent or null."""

    url: str | None = None
    description: str | None = None
    events: Sequence[str] | None = None
    policy_ids: Sequence[str] | None = None
    devbox_ids: Sequence[str] | None = None
    enabled: bool | None = None


def decode_list(text: str) -> tuple[str, ...]:
    """A list as the store holds it."""
    return _LIST.decode(text)


def judge_webhook(tx: Connection, account_id: str, given: WebhookInput, settings: ApiSettings) -> dict[str, object]:
    """The columns of a WebhookRow that ``given`` sets. Raises InvalidValueError naming the field."""
    columns: dict[str, object] = {}
    if given.url is not None:
        columns["url"] = _check_url(given.url, settings)
    if given.description is not None:
        columns["description"] = parse_text(given.description, field="description")
    if given.events is not None:
        columns["events"] = _encode(_check_events(given.events))
    if given.policy_ids is not None:
        columns["policy_ids"] = _encode(_check_policies(tx, account_id, given.policy_ids))
    if given.devbox_ids is not None:
        columns["devbox_ids"] = _encode(_check_devboxes(given.devbox_ids))
    if given.enabled is not None:
        columns["enabled"] = given.enabled
    return columns


def has_same_target(row: WebhookRow, columns: dict[str, object]) -> bool:
    """Whether the change leaves the webhook's URL as it is."""
    return columns.get("url", row.url) == row.url


def _check_url(text: str, settings: ApiSettings) -> str:
    target = parse_webhook_url(text)
    if target.scheme == "http" and target.host not in settings.webhook_http_hosts:
        message = (
            f"Deliveries to {target.host} must be encrypted: write https://, or have the operator name the host in"
            " OUTGATE_WEBHOOK_HTTP_HOSTS."
        )
        raise InvalidValueError(message, field="url")
    if not isinstance(target.host, str):
        # Names are judged at each delivery, by the addresses that they have then; so are the server's own addresses.
        reason = refuse_receiver(target.host, settings.webhook_networks, is_own=False)
        if reason is not None:
            raise InvalidValueError(f"{refusal(str(target.host), reason)}.", field="url")
    return text


def _check_events(events: Sequence[str]) -> Sequence[str]:
    if not events:
        raise InvalidValueError(f"Name at least one event: {', '.join(SUBSCRIBABLE)}.", field="events")
    for index, event in enumerate(events):
        if event not in SUBSCRIBABLE:
            message = f"{event[:80]!r} is no event; there are {', '.join(SUBSCRIBABLE)}."
            raise InvalidValueError(message, field=f"events[{index}]")
    return sorted(set(events))


def _check_policies(tx: Connection, account_id: str, policy_ids: Sequence[str]) -> Sequence[str]:
    _check_count(policy_ids, "policy_ids")
    for index, policy_id in enumerate(policy_ids):
        if policy_id in BUILTIN_POLICIES:
            continue
        policy = find_policy(tx, account_id, policy_id) if is_id(IdPrefix.POLICY, policy_id) else None
        if policy is None or policy.delete_time_ms is not None:
            message = f"There is no network policy {policy_id[:80]!r} in this account."
            raise InvalidValueError(message, field=f"policy_ids[{index}]", code="unknown_network_policy")
    return list(dict.fromkeys(policy_ids))


def _check_devboxes(devbox_ids: Sequence[str]) -> Sequence[str]:
    """Devboxes come and go, and builds have the ids of their blueprints: only the form is judged."""
    _check_count(devbox_ids, "devbox_ids")
    for index, devbox_id in enumerate(devbox_ids):
        if not (is_id(IdPrefix.DEVBOX, devbox_id) or is_id(IdPrefix.BLUEPRINT, devbox_id)):
            message = f"{devbox_id[:80]!r} is the id of neither a devbox (dbx_…) nor a build (bpt_…)."
            raise InvalidValueError(message, field=f"devbox_ids[{index}]")
    return list(dict.fromkeys(devbox_ids))


def _check_count(ids: Sequence[str], field: str) -> None:
    if len(ids) > FILTERS_MAX:
        message = f"{field} has {len(ids)} entries; use at most {FILTERS_MAX}, or none for all."
        raise InvalidValueError(message, field=field)


def _encode(entries: Sequence[str]) -> str:
    return msgspec.json.encode(entries).decode()
