"""Policies that other resources name by id."""

from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.ids import IdPrefix, is_id
from outgate.errors import InvalidValueError
from outgate.store.policies import find_policy_shared


def find_policy_reference(tx: Connection, call: Call, wanted: str, *, field: str) -> str:
    """The id of the account's live policy that ``field`` names; it stays until the transaction's end.

    Raises InvalidValueError when there is none.
    """
    policy = find_policy_shared(tx, call.account_id, wanted) if is_id(IdPrefix.POLICY, wanted) else None
    if policy is None or policy.delete_time_ms is not None:
        message = f"There is no network policy {wanted[:80]!r} in this account; create it, or name another."
        raise InvalidValueError(message, field=field, code="unknown_network_policy")
    return policy.id
