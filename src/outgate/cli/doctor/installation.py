"""What lies on this host: settings, state directory, keys, store, certificate. As root."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from outgate import clock
from outgate.cli.doctor.findings import Finding, Group
from outgate.errors import OutgateError
from outgate.privileges import Identity
from outgate.server.certificates import describe_certificate
from outgate.server.context import check_names, find_resolvers, find_tunnel_domain
from outgate.server.identity import acting_as, find_api_identity, find_front_identity, find_gate_identity
from outgate.settings import ENVIRONMENT_PREFIX, Settings, variable_of
from outgate.store.engine import open_engines
from outgate.store.migrate import count_pending, load_migrations

INSTALLATION: Final = Group("installation")
_MIB: Final = 1 << 20
SPACE_FAIL_MIB: Final = 200
SPACE_WARN_MIB: Final = 2_000
CERTIFICATE_WARN_DAYS: Final = 30
SERVICE_ENVIRONMENT: Final = Path("/etc/outgate/outgate.env")
"""The units' EnvironmentFile (ops/systemd). A command in a shell is not given it."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ: Final = stat.S_IRWXG | stat.S_IRWXO


def is_installed(settings: Settings) -> bool:
    """Whether a server has ever been started on this state directory."""
    return settings.api_dir.exists() or settings.host_token_file.exists()


def check_settings(settings: Settings) -> Iterator[Finding]:
    """That every value can be used (they have been read already)."""
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("names and keys", lambda: check_names(settings)),
        ("resolvers", lambda: ", ".join(find_resolvers(settings))),
        ("users", lambda: _describe_users(settings)),
    )
    for name, look in checks:
        try:
            seen = look()
        except OutgateError as error:
            yield INSTALLATION.failed(f"settings: {name}", error.message, "correct it (docs/settings.md) and restart")
        else:
            yield INSTALLATION.passed(f"settings: {name}", str(seen or ""))


def check_service_settings(environment: Mapping[str, str], path: Path = SERVICE_ENVIRONMENT) -> Iterator[Finding]:
    """That this command looks at the installation with the settings of the service, where there is one."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return
    except UnicodeDecodeError:
        yield INSTALLATION.failed(
            f"settings: {path}", "It is no text.", "write VARIABLE=value lines (docs/settings.md)"
        )
        return
    pairs = (line.strip().partition("=") for line in lines if line.strip() and line.strip()[0] not in "#;")
    # Quotes around a value are no part of it (systemd.exec(5)).
    missing = [
        name
        for name, _, value in pairs
        if name.startswith(ENVIRONMENT_PREFIX) and environment.get(name) not in (value, value.strip("\"'"))
    ]
    if missing:
        yield INSTALLATION.warned(
            f"settings: {path}",
            f"The service is given {', '.join(missing)}, and this command was not.",
            f"set -a; . {path}; set +a",
        )


def _describe_users(settings: Settings) -> str:
    users = {"api": find_api_identity(settings), "gate": find_gate_identity(settings)}
    if settings.tunnel_domain is not None:
        users["front"] = find_front_identity(settings)
    return ", ".join(f"{name} {identity.uid}" for name, identity in users.items())


def check_state(settings: Settings) -> Iterator[Finding]:
    """Owners, modes and room. Everything here is there, or said to be missing."""
    yield check_path(settings.state_dir, owner=0, forbidden=_OTHERS_WRITE)
    for secret in (settings.api_key_file, settings.host_token_file):
        if secret.exists():
            yield check_path(secret, owner=0, forbidden=_OTHERS_READ)
    try:
        api: Identity = find_api_identity(settings)
    except OutgateError:
        return  # said with the settings
    if settings.api_dir.exists():
        yield check_path(settings.api_dir, owner=api.uid, forbidden=_OTHERS_READ)
    free = shutil.disk_usage(settings.state_dir).free // _MIB
    yield check_space(settings.state_dir, free)
    yield check_store(settings, api)
    yield from check_certificate(settings)


def check_path(path: Path, *, owner: int, forbidden: int) -> Finding:
    """That ``path`` belongs to ``owner`` and has none of the mode bits ``forbidden``."""
    try:
        status = path.stat()
    except OSError as error:
        return INSTALLATION.failed(
            str(path), error.strerror or "cannot be looked at", "restart the server, which makes it"
        )
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != owner:
        return INSTALLATION.failed(str(path), f"It belongs to user {status.st_uid}.", f"chown {owner} {path}")
    if mode & forbidden:
        return INSTALLATION.failed(
            str(path),
            f"Its mode is {mode:04o}: others may do what they must not.",
            f"chmod {mode & ~forbidden:04o} {path}",
        )
    return INSTALLATION.passed(str(path), f"mode {mode:04o}")


def check_space(path: Path, free_mib: int) -> Finding:
    """Whether there is room for records, snapshots and disks."""
    seen = f"{free_mib} MiB are free in {path}"
    if free_mib >= SPACE_WARN_MIB:
        return INSTALLATION.passed("free space", seen)
    remedy = "delete snapshots or devboxes, or give the state directory a larger file system"
    if free_mib < SPACE_FAIL_MIB:
        return INSTALLATION.failed("free space", f"{seen}: nothing will start soon.", remedy)
    return INSTALLATION.warned("free space", seen, remedy)


def check_store(settings: Settings, api: Identity) -> Finding:
    """Whether the store answers and has this version's tables. Nothing is made or changed."""
    if settings.database_url is None and not (settings.api_dir / "outgate.db").exists():
        return INSTALLATION.failed("store", "There is no database yet.", "start the server, which makes it")
    scripts = load_migrations()
    try:
        # As the api: what SQLite leaves beside the file would else be root's, and in the way of the api.
        with acting_as(api):
            engines = open_engines(settings.store_url)
            try:
                pending = count_pending(engines.reader, scripts)
            finally:
                engines.reader.dispose()
                engines.writer.dispose()
    except OutgateError as error:
        return INSTALLATION.failed(
            "store", error.message, f"look at {variable_of('database_url')}, or put a backup back"
        )
    except (SQLAlchemyError, OSError) as error:
        # The first line alone: what follows may quote the statement.
        return INSTALLATION.failed(
            "store", str(error).splitlines()[0], f"see that it runs, and {variable_of('database_url')}"
        )
    if pending:
        return INSTALLATION.warned(
            "store", f"It lacks {pending} changes of this version.", "restart the server, which makes them"
        )
    return INSTALLATION.passed("store", "reachable, and of this version")


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """How long the tunnels' certificate lasts, where there are tunnels."""
    try:
        domain = find_tunnel_domain(settings)
    except OutgateError:
        return  # said with the settings
    if domain is None:
        return
    path = settings.tls_certificate or settings.tls_dir / "certificate.pem"
    if not path.exists():
        yield INSTALLATION.failed("certificate", f"{path} does not exist.", "outgate tls make")
        return
    try:
        not_after = describe_certificate(path).not_after
    except (OutgateError, ValueError, OSError) as error:
        yield INSTALLATION.failed("certificate", f"{path} cannot be read: {error}", "put a PEM certificate there")
        return
    is_own = settings.tls_certificate is None
    remedy = "outgate tls make --renew, and restart" if is_own else "put the new one in place, and restart"
    yield grade_certificate(not_after, datetime.fromtimestamp(clock.wall_ms() / 1000, UTC), remedy)


def grade_certificate(not_after: datetime, now: datetime, remedy: str) -> Finding:
    """Whether a certificate that ends then is good for a while."""
    left = not_after - now
    seen = f"until {not_after:%Y-%m-%d} ({left.days} days)"
    if left <= timedelta():
        return INSTALLATION.failed("certificate", f"It ended on {not_after:%Y-%m-%d}: clients refuse it.", remedy)
    if left < timedelta(days=CERTIFICATE_WARN_DAYS):
        return INSTALLATION.warned("certificate", f"Good {seen}.", remedy)
    return INSTALLATION.passed("certificate", seen)


def is_root() -> bool:
    """Whether this process may look everywhere."""
    return os.geteuid() == 0
