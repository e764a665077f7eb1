"""Directories, keys and locks on disk: made with the right owner and mode, whoever comes first."""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from outgate.control.secrets_at_rest import make_key
from outgate.errors import OutgateError, SettingError
from outgate.privileges import Identity
from outgate.settings import Settings, variable_of

_TOKEN_BYTES: Final = 32
_KEY_BYTES_MAX: Final = 4096


class InstanceBusyError(OutgateError):
    """Another process of this kind runs on the same state directory."""

    code = "instance_busy"


def ensure_directories(settings: Settings) -> None:
    """Make the directories of an installation, the api's excepted. Others may walk through the outermost ones.

    Raises OSError.
    """
    for path in (settings.state_dir, settings.run_dir):
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)
    for path in (settings.agent_dir, settings.runtime_dir):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)


def ensure_api_directory(settings: Settings, api: Identity) -> None:
    """Make the api's directory, after :func:`ensure_directories` and :func:`make_first_key`.

    Raises OSError, and :class:`SettingError` for a state directory that the api's user cannot reach.
    """
    path = settings.api_dir
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    os.chown(path, api.uid, api.gid)
    _check_reachable(path.resolve(), api)


def _check_reachable(directory: Path, api: Identity) -> None:
    """The api opens its files after it gave up root, so it must be able to walk to them."""
    for parent in directory.parents:
        status = parent.stat()
        if status.st_uid == api.uid:
            needed = stat.S_IXUSR
        else:
            needed = stat.S_IXGRP if status.st_gid == api.gid else stat.S_IXOTH
        if not status.st_mode & needed:
            raise SettingError(
                f"{variable_of('state_dir')}: the api runs as user {api.uid}, who cannot pass {parent}; "
                f"allow it (chmod o+x {parent}) or choose another directory."
            )


def ensure_host_token(settings: Settings) -> str:
    """The token by which api and agent know each other, made at the first call. Raises OSError."""
    path = settings.host_token_file
    with contextlib.suppress(FileExistsError):
        _write_new(path, secrets.token_urlsafe(_TOKEN_BYTES))
    return path.read_text("ascii").strip()


def read_api_key(settings: Settings) -> str | None:
    """The key in the state directory, or None. Raises OSError."""
    try:
        with settings.api_key_file.open("rb") as file:
            return file.read(_KEY_BYTES_MAX).decode("ascii").strip() or None
    except FileNotFoundError:
        return None


def make_first_key(settings: Settings) -> str | None:
    """At the first start: the key of the first account, written down; None at every later start.

    It is written before the store knows it, so that a start that is broken off does not lose it. A first start
    is one without the api's directory: whoever removes the file later does not get another key by that.
    """
    if settings.api_key_file.exists() or settings.api_dir.exists():
        return None
    key = make_key() if settings.api_key is None else settings.api_key.get_secret_value()
    settings.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    _write_new(settings.api_key_file, key)
    return key


def _write_new(path: Path, text: str) -> None:
    """Write a file for root alone; whole or not at all. Raises FileExistsError when there is one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode("ascii") + b"\n")
        os.fsync(descriptor)
        path.hardlink_to(draft)
    finally:
        os.close(descriptor)
        draft.unlink()


@contextmanager
def locked(settings: Settings, name: str, what: str) -> Iterator[None]:
    """Hold the instance's lock of that name. Raises :class:`InstanceBusyError` when somebody has it."""
    path = settings.run_dir / f"{name}.lock"
    descriptor = _lock(path)
    try:
        if descriptor is None:
            raise InstanceBusyError(f"{what} runs already on {settings.state_dir}; end it first.")
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None. A file that a teardown removed meanwhile is nobody's lock."""
    while True:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
            os.close(descriptor)
