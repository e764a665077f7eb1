"""Tokens for the agent gateway and the MCP hub, which this server does not have: refused, with the reason.

What a caller got wrong is said first, so that a program learns of an unknown devbox here as anywhere else.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.configs import ConfigKind, find_config_reference
from outgate.control.devboxes import devbox_not_found
from outgate.control.ids import IdPrefix, is_id
from outgate.control.secrets import find_secret_reference
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.errors import InvalidValueError
from outgate.store.devboxes import find_devbox


async def refuse_gateway_token(
    services: Services, caller: Caller, devbox_id: str, gateway: str, secret: str
) -> InvalidValueError:
    """Why there is no such token. Raises NotFoundError, and InvalidValueError for what the caller got wrong."""
    await _check(services, caller, devbox_id, _Named(ConfigKind.GATEWAY, "gateway", gateway, secret))
    return _no_gateway("agent gateway", "allow_agent_gateway", "OUTGATE_AGENT_GATEWAY_HOSTS")


async def refuse_mcp_token(
    services: Services, caller: Caller, devbox_id: str, mcp_config: str, secret: str
) -> InvalidValueError:
    """Why there is no such token. Raises NotFoundError, and InvalidValueError for what the caller got wrong."""
    await _check(services, caller, devbox_id, _Named(ConfigKind.MCP, "mcp_config", mcp_config, secret))
    return _no_gateway("MCP hub", "allow_mcp_gateway", "OUTGATE_MCP_GATEWAY_HOSTS")


@dataclass(frozen=True, slots=True)
class _Named:
    """What the body names; ``field`` is where it names the configuration."""

    kind: ConfigKind
    field: str
    config: str
    secret: str


async def _check(services: Services, caller: Caller, devbox_id: str, named: _Named) -> None:
    def check(tx: Connection) -> None:
        is_known = is_id(IdPrefix.DEVBOX, devbox_id) and find_devbox(tx, caller.account_id, devbox_id) is not None
        if not is_known:
            raise devbox_not_found(devbox_id)
        find_config_reference(tx, caller.account_id, named.kind, named.config, field=named.field)
        find_secret_reference(tx, caller.account_id, named.secret, field="secret")

    await read_as(services, caller, check)


def _no_gateway(what: str, flag: str, setting: str) -> InvalidValueError:
    message = (
        f"This server has no {what}, so there is nothing that would take a token. Run one of your own, name it in"
        f" {setting} so that {flag} opens it, and give the devbox its credential as a secret."
    )
    return InvalidValueError(message, code="not_served")
