"""``/v1/accounts``."""

from datetime import UTC, datetime
from typing import Final

import msgspec
from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.accounts import get_account

router: Final = APIRouter(prefix="/v1/accounts", tags=["accounts"])


class Billing(msgspec.Struct, frozen=True):
    """Nobody is billed; the wire wants this field."""

    account_billing_type: str = "UNRECOGNIZED"


class AccountView(msgspec.Struct, frozen=True):
    """The account of the key. ``created_at`` is ISO 8601."""

    id: str
    name: str
    created_at: str
    account_status: str = "ACCOUNT_STATUS_ENABLED"
    tier: str = "UNRECOGNIZED"
    billing: Billing = Billing()


@router.get("/me", operation_id="getOwnAccount", summary="The own account", openapi_extra=describe(AccountView))
async def me(context: Context) -> Response:
    """Whose key this is."""
    account = await get_account(context.services, context.caller)
    created = datetime.fromtimestamp(account.create_time_ms / 1000, UTC)
    return respond(AccountView(account.id, account.name, created.isoformat(timespec="milliseconds")))
