"""Who asks: API keys of accounts, tokens of hosts."""

from sqlalchemy import Connection

from outgate.clock import wall_ms
from outgate.control.callers import Caller
from outgate.control.errors import UnauthorizedError
from outgate.control.scopes import decode_scopes
from outgate.control.secrets_at_rest import KEY_LENGTH_MAX, SecretDigest, digest_secret
from outgate.control.services import Services
from outgate.store import accounts as account_rows
from outgate.store import hosts as host_rows
from outgate.store.accounts import is_key_live
from outgate.store.hosts import HostRow

_UNKNOWN_KEY = "The API key is not valid. Send 'Authorization: Bearer <key>' with a key neither revoked nor expired."


async def authenticate(services: Services, key: str, client: str) -> Caller:
    """The caller that ``key``, shown by ``client``, belongs to. Raises UnauthorizedError and TooManyAttemptsError.

    A key that was found once is remembered by its digest, which spares a look-up for each request. It is not
    believed for that: :mod:`outgate.control.transactions` checks in each transaction that it is still valid.
    """
    presented = digest_secret(key[: KEY_LENGTH_MAX + 1])
    attempts, failures_max = services.key_attempts, services.settings.auth_failures_max
    known = services.known_keys.find(presented.digest)
    if known is not None:
        attempts.check(client, presented.digest, failures_max)
        attempts.prove(client, presented.digest)
        return known
    caller = await attempts.look(
        client,
        presented.digest,
        failures_max,
        lambda: services.database.read(lambda connection: _find_caller(connection, presented)),
    )
    if caller is None:
        services.metrics.auth_failures.labels("api_key").inc()
        raise unknown_key()
    services.known_keys.add(presented.digest, caller)
    return caller


def unknown_key() -> UnauthorizedError:
    """The refusal of keys that are not, or no longer, valid."""
    return UnauthorizedError(_UNKNOWN_KEY)


def _find_caller(connection: Connection, presented: SecretDigest) -> Caller | None:
    for row in account_rows.find_keys(connection, presented.lookup):
        if presented.equals(row.digest) and is_key_live(connection, row.id, now_ms=wall_ms()):
            return Caller(row.account_id, row.id, None if row.scopes is None else decode_scopes(row.scopes))
    return None


async def authenticate_host(services: Services, token: str, client: str) -> HostRow:
    """The host that ``token``, shown by ``client``, belongs to. Raises UnauthorizedError and TooManyAttemptsError."""
    presented = digest_secret(token[: KEY_LENGTH_MAX + 1])
    host = await services.host_attempts.look(
        client,
        presented.digest,
        services.settings.auth_failures_max,
        lambda: services.database.read(lambda connection: _find_host(connection, presented)),
    )
    if host is None:
        services.metrics.auth_failures.labels("host_token").inc()
        raise UnauthorizedError("The host token is not valid.")
    return host


async def check_metrics_token(services: Services, token: str, expected: str, client: str) -> None:
    """Raise UnauthorizedError unless ``token`` is the expected one, TooManyAttemptsError as for keys."""
    presented = digest_secret(token[: KEY_LENGTH_MAX + 1])
    wanted = digest_secret(expected)

    async def compare() -> bool | None:
        return presented.equals(wanted.digest) or None

    if await services.metrics_attempts.look(client, presented.digest, services.settings.auth_failures_max, compare):
        return
    services.metrics.auth_failures.labels("metrics_token").inc()
    raise UnauthorizedError("The token is not valid; it is what OUTGATE_METRICS_TOKEN says.")


def _find_host(connection: Connection, presented: SecretDigest) -> HostRow | None:
    found = host_rows.find_hosts(connection, presented.lookup)
    return next((row for row in found if presented.equals(row.digest)), None)
