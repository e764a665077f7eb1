"""Secrets for devboxes, and the key they are stored under."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.clock import wall_ms
from outgate.control.accounts import create_account
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.secret_values import KeyRing, SealedValueError
from outgate.control.secrets import (
    BINDINGS_MAX,
    SecretReference,
    check_secrets,
    create_secret,
    delete_secret,
    load_keys,
    render_secrets,
    resolve_secrets,
    update_secret,
)
from outgate.control.services import Services
from outgate.errors import InvalidValueError, SettingError
from outgate.model.desired import DesiredPhase, DevboxDocument


@pytest.fixture
def call(services: Services) -> Call:
    key = create_account(services.database, services.ids, "one", wall_ms())
    return Call(Caller(key.account_id, key.key_id), wall_ms())


def resolve(services: Services, call: Call, bindings: dict[str, str]) -> dict[str, str]:
    return services.database.read_now(
        lambda tx: resolve_secrets(tx, services, call.account_id, bindings, field="secrets")
    )


def render(services: Services, call: Call, **bindings: str) -> DevboxDocument:
    document = DevboxDocument(
        id="dbx_1",
        account_id=call.account_id,
        policy_id="npol_1",
        phase=DesiredPhase.RUNNING,
        environment={"A": "own", "B": "own"},
        secrets=bindings,
    )
    return services.database.read_now(lambda tx: render_secrets(tx, services, document))


def test_devboxes_get_values_by_name(services: Services, call: Call) -> None:
    asyncio.run(create_secret(services, call, "DB", "one"))
    assert resolve(services, call, {"PASS": "DB", "AGAIN": "DB"}) == {"PASS": "one", "AGAIN": "one"}
    assert resolve(services, call, {}) == {}
    asyncio.run(update_secret(services, call, SecretReference(name="DB"), "two"))
    rendered = render(services, call, A="DB", PASS="DB")
    assert rendered.environment == {"A": "two", "B": "own", "PASS": "two"}
    assert rendered.secrets == {}


def test_what_cannot_be_bound_is_refused(services: Services, call: Call) -> None:
    asyncio.run(create_secret(services, call, "DB", "one"))
    stranger = create_account(services.database, services.ids, "two", wall_ms())

    def check(account_id: str, bindings: dict[str, str]) -> str | None:
        try:
            services.database.read_now(lambda tx: check_secrets(tx, account_id, bindings, field="secrets"))
        except InvalidValueError as error:
            return error.field
        return None

    assert check(call.account_id, {"PASS": "DB"}) is None
    assert check(stranger.account_id, {"PASS": "DB"}) == "secrets.PASS"
    assert check(call.account_id, {"PASS": "\x00"}) == "secrets.PASS"
    assert check(call.account_id, {"1": "DB"}) == "secrets"
    assert check(call.account_id, {f"V{n}": "DB" for n in range(BINDINGS_MAX + 1)}) == "secrets"
    with pytest.raises(InvalidValueError, match="no secret 'none'"):
        resolve(services, call, {"PASS": "none"})


def test_a_secret_that_is_gone_keeps_nothing_else_from_the_host(services: Services, call: Call) -> None:
    asyncio.run(create_secret(services, call, "DB", "one"))
    asyncio.run(create_secret(services, call, "KEPT", "kept"))
    asyncio.run(delete_secret(services, call, SecretReference(name="DB")))
    assert render(services, call, PASS="DB", K="KEPT").environment == {"A": "own", "B": "own", "K": "kept"}
    other = replace(services, keys=KeyRing.generate())
    assert render(other, call, K="KEPT").environment == {"A": "own", "B": "own"}


def test_a_store_is_under_one_key(services: Services, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    with pytest.raises(SettingError, match="does not exist"):
        load_keys(services.database, path, is_given=True)
    keys = load_keys(services.database, path, is_given=False)
    assert load_keys(services.database, path, is_given=True).fingerprint == keys.fingerprint
    services = replace(services, keys=keys)
    asyncio.run(create_secret(services, call, "DB", "one"))

    other = replace(services, keys=KeyRing.generate())
    with pytest.raises(SealedValueError, match="another key"):
        asyncio.run(create_secret(other, call, "NEW", "x"))
    with pytest.raises(SealedValueError, match="another key"):
        asyncio.run(update_secret(other, call, SecretReference(name="DB"), "x"))
    with pytest.raises(SealedValueError):
        resolve(other, call, {"PASS": "DB"})

    kept = path.rename(tmp_path / "backup")
    with pytest.raises(SettingError, match="is missing; put it back"):
        load_keys(services.database, path, is_given=False)
    assert not path.exists()
    wrong = tmp_path / "wrong"
    wrong.write_text("A" * 43 + "=")
    wrong.chmod(0o600)
    with pytest.raises(SettingError, match="not the key"):
        load_keys(services.database, wrong, is_given=True)
    assert load_keys(services.database, kept, is_given=True).fingerprint == keys.fingerprint
    asyncio.run(delete_secret(services, call, SecretReference(name="DB")))
    # Nothing is lost with the key when there is nothing under it.
    assert load_keys(services.database, path, is_given=False).fingerprint != keys.fingerprint
