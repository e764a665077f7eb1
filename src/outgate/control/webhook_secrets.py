"""Secrets of webhooks, and signatures made with them (Standard Webhooks, https://www.standardwebhooks.com)."""

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from outgate.control.secrets import check_keys
from outgate.control.services import Services
from outgate.store.webhooks import WebhookRow

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of secrets
_SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64."""


def give_secret(tx: Connection, services: Services, row: WebhookRow, *, overlap_until_ms: int | None) -> WebhookRow:
    """``row`` with a new secret; the one it has signs, too, until ``overlap_until_ms``.

    Raises SealedValueError when the store is under another key.
    """
    check_keys(tx, services.keys)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    return replace(
        row,
        sealed=services.keys.seal(secret, _owner(row)),
        old_sealed=None if overlap_until_ms is None else row.sealed,
        old_until_ms=overlap_until_ms,
        key_fingerprint=services.keys.fingerprint,
    )


def open_secret(services: Services, row: WebhookRow) -> str:
    """The webhook's secret. Raises SealedValueError."""
    return services.keys.open(row.sealed, _owner(row))


def sign_delivery(services: Services, row: WebhookRow, delivery_id: str, body: str, now_ms: int) -> Mapping[str, str]:
    """The headers of a delivery that is sent now. Raises SealedValueError."""
    sealed = [row.sealed]
    if row.old_sealed is not None and row.old_until_ms is not None and now_ms < row.old_until_ms:
        sealed.append(row.old_sealed)
    opened = [services.keys.open(one, _owner(row)) for one in sealed]
    return make_headers(opened, delivery_id, body, now_ms)


def make_headers(signing: list[str], delivery_id: str, body: str, now_ms: int) -> Mapping[str, str]:
    """The three headers of the specification, with a signature by each of the secrets."""
    time_s = str(now_ms // 1000)
    signed = f"{delivery_id}.{time_s}.{body}".encode()
    signatures = [
        base64.b64encode(hmac.digest(base64.b64decode(secret.removeprefix(SECRET_PREFIX)), signed, "sha256")).decode()
        for secret in signing
    ]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": time_s,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _owner(row: WebhookRow) -> str:
    return f"{row.account_id}/{row.id}"
