"""Webhooks: what they can be told, and where they are."""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from outgate.errors import InvalidValueError
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.shown import show_text

URL_LENGTH_MAX: Final = 2048
_URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*\Z", re.ASCII)
"""Those of a URI (RFC 3986 §2); everything else is to be percent-encoded."""
_PORTS: Final = {"https": 443, "http": 80}


class WebhookEvent(StrEnum):
    """What a webhook is told of. The values are ``type`` in what is sent."""

    FLOW_DENIED = "flow.denied"
    FLOW_REPORTED = "flow.reported"
    """Would have been denied; the policy is in report-only mode."""
    HOST_WARNING = "host.warning"
    """A host's warning began or ended."""
    POLICY_UPDATED = "policy.updated"
    """Made, changed or deleted."""
    TEST = "webhook.test"
    """Sent when somebody asks for it; nothing to subscribe to."""


SUBSCRIBABLE: Final = tuple(event for event in WebhookEvent if event is not WebhookEvent.TEST)


class DeliveryState(StrEnum):
    """How far a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A webhook's URL, taken apart. ``path`` begins with ``/`` and includes the query."""

    scheme: str
    host: DomainName | IPAddress
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says (RFC 9110 §7.2)."""
        shown = f"[{self.host}]" if ":" in str(self.host) else str(self.host)
        return shown if self.port == _PORTS[self.scheme] else f"{shown}:{self.port}"


def parse_webhook_url(text: str) -> WebhookTarget:
    """``text`` taken apart. Raises InvalidValueError, which says what to write instead."""
    if len(text) > URL_LENGTH_MAX:
        raise _bad(f"it is {len(text)} characters long; use at most {URL_LENGTH_MAX}")
    if not _URL_CHARACTERS.match(text):
        raise _bad("it holds a character that no URL has; write it percent-encoded, and names in their xn-- form")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _bad("its host or port is none") from None
    if parts.scheme not in _PORTS:
        raise _bad("it does not begin with https://")
    if parts.username is not None or parts.password is not None:
        raise _bad("it holds user information; deliveries are signed instead")
    if "#" in text:
        raise _bad("it holds a fragment, which would not be sent; leave it out")
    if port == 0:
        raise _bad("port 0 is none")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        host = parse_webhook_host(parts.hostname or "")
    except InvalidValueError:
        raise _bad("its host is neither a host name nor an address") from None
    return WebhookTarget(parts.scheme, host, port or _PORTS[parts.scheme], path)


def parse_webhook_host(text: str) -> DomainName | IPAddress:
    """The host name in normal form, or the address (without brackets). Raises InvalidValueError."""
    try:
        # Scoped addresses belong to a link of the server's own.
        return ip_address(text) if "%" not in text else parse_domain_name(text)
    except ValueError:
        pass
    try:
        return parse_domain_name(text)
    except InvalidValueError:
        message = f"{show_text(text)} is neither a host name nor an address; write one such as hooks.example.com."
        raise InvalidValueError(message) from None


def _bad(why: str) -> InvalidValueError:
    message = f"This is no URL to deliver to: {why}. Write one such as https://hooks.example.com/outgate."
    return InvalidValueError(message, field="url")
