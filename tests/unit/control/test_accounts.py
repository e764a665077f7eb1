import asyncio
import hashlib

import pytest
from sqlalchemy import text

from outgate.control.accounts import create_account, create_key, ensure_first_key, list_accounts, list_keys, revoke_key
from outgate.control.authentication import authenticate, authenticate_host
from outgate.control.errors import ConflictError, NotFoundError, UnauthorizedError
from outgate.control.hosts import ensure_host
from outgate.control.policy_reading import get_policy
from outgate.control.services import Services
from outgate.core.clients import LOCAL
from outgate.errors import InvalidValueError

NOW_MS = 1_795_000_000_000


def test_a_new_key_is_long_and_only_its_digest_is_stored(services: Services) -> None:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    assert made.api_key.startswith("ogk_")
    assert len(made.api_key) == len("ogk_") + 43  # 256 bits in base 64
    rows = services.database.read_now(lambda tx: tx.execute(text("SELECT * FROM api_keys")).all())
    assert made.api_key not in repr(rows)
    assert rows[0].digest == hashlib.sha256(made.api_key.encode()).digest()
    caller = asyncio.run(authenticate(services, made.api_key, LOCAL))
    assert (caller.account_id, caller.key_id) == (made.account_id, made.key_id)


@pytest.mark.parametrize("key", ["", "x", "ogk_", "ogk_" + "A" * 43, "k" * 10_000, "ogk_\udc80"])
def test_other_keys_are_refused(services: Services, key: str) -> None:
    create_account(services.database, services.ids, "one", NOW_MS)
    with pytest.raises(UnauthorizedError):
        asyncio.run(authenticate(services, key.encode("utf-8", "replace").decode(), LOCAL))


def test_a_key_that_shares_its_lookup_with_another_is_told_apart(services: Services) -> None:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    services.database.write_now(
        lambda tx: tx.execute(
            text(
                "INSERT INTO api_keys (id, account_id, name, lookup, digest, create_time_ms)"
                " SELECT 'key_0', account_id, 'twin', lookup, zeroblob(32), 0 FROM api_keys"
            )
        )
    )
    assert asyncio.run(authenticate(services, made.api_key, LOCAL)).key_id == made.key_id


def test_a_revoked_key_does_nothing_more_although_it_was_just_seen(services: Services) -> None:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    caller = asyncio.run(authenticate(services, made.api_key, LOCAL))
    revoked = revoke_key(services.database, made.key_id, NOW_MS + 5)
    assert revoked.revoke_time_ms == NOW_MS + 5
    assert revoke_key(services.database, made.key_id, NOW_MS + 9).revoke_time_ms == NOW_MS + 5
    # The process remembers the key, but the transaction does not believe it.
    assert asyncio.run(authenticate(services, made.api_key, LOCAL)) == caller
    with pytest.raises(UnauthorizedError):
        asyncio.run(get_policy(services, caller, "npol_" + "a" * 21))


def test_the_first_start_makes_one_account_and_one_key(services: Services) -> None:
    made = ensure_first_key(services.database, services.ids, None, NOW_MS)
    assert made is not None
    assert ensure_first_key(services.database, services.ids, None, NOW_MS) is None
    assert [account.name for account in list_accounts(services.database)] == ["default"]
    assert [key.id for key in list_keys(services.database, "default")] == [made.key_id]


def test_a_chosen_key_is_the_first_or_is_added_once(services: Services) -> None:
    first = ensure_first_key(services.database, services.ids, "my-own-key", NOW_MS)
    assert first is not None
    assert first.api_key == "my-own-key"
    assert ensure_first_key(services.database, services.ids, "my-own-key", NOW_MS) is None
    second = ensure_first_key(services.database, services.ids, "another", NOW_MS)
    assert second is not None
    assert second.account_id == first.account_id
    revoke_key(services.database, second.key_id, NOW_MS)
    assert ensure_first_key(services.database, services.ids, "another", NOW_MS) is None


@pytest.mark.parametrize("key", ["", "with space", "tab\t", "ümlaut", "x" * 513])
def test_a_chosen_key_must_fit_a_header(services: Services, key: str) -> None:
    with pytest.raises(InvalidValueError, match="visible ASCII"):
        ensure_first_key(services.database, services.ids, key, NOW_MS)


def test_accounts_and_keys_by_name_and_id(services: Services) -> None:
    one = create_account(services.database, services.ids, "one", NOW_MS)
    with pytest.raises(ConflictError, match="already exists"):
        create_account(services.database, services.ids, "one", NOW_MS)
    create_key(services.database, services.ids, "one", "second", NOW_MS)
    create_key(services.database, services.ids, one.account_id, "third", NOW_MS)
    assert [key.name for key in list_keys(services.database, "one")] == ["first", "second", "third"]
    with pytest.raises(NotFoundError):
        create_key(services.database, services.ids, "two", "x", NOW_MS)
    with pytest.raises(NotFoundError):
        revoke_key(services.database, "key_none", NOW_MS)


def test_a_host_is_known_by_its_newest_token(services: Services) -> None:
    first = ensure_host(services, "local", "token-1", NOW_MS)
    assert ensure_host(services, "local", "token-2", NOW_MS).id == first.id
    assert asyncio.run(authenticate_host(services, "token-2", LOCAL)).id == first.id
    for token in ("token-1", "", "token-2x"):
        with pytest.raises(UnauthorizedError):
            asyncio.run(authenticate_host(services, token, LOCAL))
