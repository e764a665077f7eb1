"""What a caller says about a gateway or MCP configuration, and the document it means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec

from outgate.control.texts import parse_text
from outgate.errors import InvalidValueError

CUSTOM_HEADERS_MAX: Final = 8
ENDPOINT_LENGTH_MAX: Final = 2048
HEADER_VALUE_LENGTH_MAX: Final = 8192
TOOLS_MAX: Final = 1000
TOOL_LENGTH_MAX: Final = 256
HEADER_NAME_PATTERN: Final = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$"
_HEADER_NAME: Final = re.compile(HEADER_NAME_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
"""A token (RFC 9110 §5.6.2)."""
_MESSAGE_HEADERS: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""They belong to the message or the connection (RFC 9110 §7.6.1), so no configuration may set them."""


class AuthType(StrEnum):
    """How a credential is put into a request."""

    HEADER = "header"
    BEARER = "bearer"
    BASIC = "basic"


class AuthDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``key`` is the header's name, and set for ``header`` only."""

    type: AuthType
    key: str | None = None


class HeaderDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One header more: its value, or the id of the secret that holds it."""

    name: str
    secret: str | None = None
    value: str | None = None


class ConfigDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A configuration as it is stored. ``allowed_tools`` is None for gateway configurations."""

    endpoint: str
    auth: AuthDocument
    description: str | None = None
    headers: tuple[HeaderDocument, ...] = ()
    allowed_tools: tuple[str, ...] | None = None


_NOTHING: Final = ConfigDocument("", AuthDocument(AuthType.BEARER))
"""What a new configuration begins with: bodies of creations have an endpoint, and bearer is the customary way."""


@dataclass(frozen=True, slots=True)
class AuthInput:
    """``auth_mechanism`` of a body."""

    type: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class HeaderInput:
    """One of ``custom_headers``. ``secret`` is an id or a name."""

    name: str
    secret: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigInput:
    """A create or update body, of the right types and not yet judged. None: absent or null."""

    name: str | None = None
    description: str | None = None
    endpoint: str | None = None
    auth: AuthInput | None = None
    headers: tuple[HeaderInput, ...] | None = None
    allowed_tools: tuple[str, ...] | None = None


def merge_config(before: ConfigDocument | None, given: ConfigInput, secret_ids: Mapping[str, str]) -> ConfigDocument:
    """``before`` with what is given in place of its own; a new document when None.

    ``secret_ids`` has the id of each secret that the headers name. Raises InvalidValueError naming the field.
    """
    changes: dict[str, object] = {}
    if given.endpoint is not None:
        changes["endpoint"] = _parse_endpoint(given.endpoint)
    if given.auth is not None:
        changes["auth"] = _parse_auth(given.auth)
    if given.description is not None:
        changes["description"] = parse_text(given.description, field="description")
    if given.headers is not None:
        changes["headers"] = _parse_headers(given.headers, secret_ids)
    if given.allowed_tools is not None:
        changes["allowed_tools"] = _parse_tools(given.allowed_tools)
    return msgspec.structs.replace(before or _NOTHING, **changes)


def _parse_endpoint(text: str) -> str:
    """An http or https URL of a named host, without anything that belongs to one request or is a credential."""
    if len(text) > ENDPOINT_LENGTH_MAX:
        message = f"This is {len(text)} characters long; use at most {ENDPOINT_LENGTH_MAX}."
        raise InvalidValueError(message, field="endpoint")
    if any(character <= " " or character >= "\x7f" for character in text):
        raise _bad_endpoint("it holds a space or a character beyond ASCII")
    try:
        parts = urlsplit(text)
        # Read, because the library checks the port only then.
        _ = parts.port
    except ValueError as error:
        raise _bad_endpoint(str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise _bad_endpoint("it does not begin with https:// or http://")
    if not parts.hostname:
        raise _bad_endpoint("it names no host")
    if parts.username is not None or parts.password is not None:
        raise _bad_endpoint("it holds a credential; store that as a secret")
    if parts.query or parts.fragment:
        raise _bad_endpoint("it has a query or a fragment")
    return text


def _bad_endpoint(why: str) -> InvalidValueError:
    message = f"This is no endpoint: {why}. Write a URL such as https://api.example.com."
    return InvalidValueError(message, field="endpoint")


def _parse_auth(given: AuthInput) -> AuthDocument:
    try:
        kind = AuthType(given.type)
    except ValueError:
        message = f"{given.type[:80]!r} is no type; use header, bearer or basic."
        raise InvalidValueError(message, field="auth_mechanism.type") from None
    if kind is not AuthType.HEADER:
        if given.key is not None:
            message = f"Only type header has a key; leave it out for {kind}."
            raise InvalidValueError(message, field="auth_mechanism.key")
        return AuthDocument(kind)
    if given.key is None:
        message = "Type header needs the header's name as key, for example x-api-key."
        raise InvalidValueError(message, field="auth_mechanism.key")
    return AuthDocument(kind, _parse_header_name(given.key, "auth_mechanism.key"))


def _parse_header_name(name: str, field: str) -> str:
    if not _HEADER_NAME.match(name):
        raise InvalidValueError(f"{name[:80]!r} is no header name; use letters, digits and '-'.", field=field)
    if name.lower() in _MESSAGE_HEADERS:
        raise InvalidValueError(f"{name} belongs to the connection; it cannot be set.", field=field)
    return name


def _parse_headers(given: tuple[HeaderInput, ...], secret_ids: Mapping[str, str]) -> tuple[HeaderDocument, ...]:
    if len(given) > CUSTOM_HEADERS_MAX:
        message = f"custom_headers has {len(given)} entries; it takes at most {CUSTOM_HEADERS_MAX}."
        raise InvalidValueError(message, field="custom_headers", code="too_many_entries")
    headers = tuple(_parse_header(entry, f"custom_headers[{i}]", secret_ids) for i, entry in enumerate(given))
    names: set[str] = set()
    for index, header in enumerate(headers):
        if header.name.lower() in names:
            message = f"{header.name} was given before; a header can be set once."
            raise InvalidValueError(message, field=f"custom_headers[{index}].name")
        names.add(header.name.lower())
    return headers


def _parse_header(given: HeaderInput, place: str, secret_ids: Mapping[str, str]) -> HeaderDocument:
    name = _parse_header_name(given.name, f"{place}.name")
    if (given.secret is None) == (given.value is None):
        raise InvalidValueError("A custom header has either a secret or a value.", field=place)
    if given.secret is not None:
        return HeaderDocument(name, secret=secret_ids[given.secret])
    value = given.value or ""
    # RFC 9110 §5.5: visible characters, spaces and tabs.
    if len(value) > HEADER_VALUE_LENGTH_MAX or any(c != "\t" and not " " <= c <= "~" for c in value):
        message = f"This is no header value; use at most {HEADER_VALUE_LENGTH_MAX} ASCII characters on one line."
        raise InvalidValueError(message, field=f"{place}.value")
    return HeaderDocument(name, value=value)


def _parse_tools(tools: tuple[str, ...]) -> tuple[str, ...]:
    if len(tools) > TOOLS_MAX:
        message = f"allowed_tools has {len(tools)} entries; it takes at most {TOOLS_MAX}."
        raise InvalidValueError(message, field="allowed_tools", code="too_many_entries")
    for index, tool in enumerate(tools):
        if not tool or len(tool) > TOOL_LENGTH_MAX or not tool.isascii() or not tool.isprintable() or " " in tool:
            message = f"{tool[:80]!r} is no pattern; write a tool's name, with * for any characters, such as github.*."
            raise InvalidValueError(message, field=f"allowed_tools[{index}]")
    return tools
