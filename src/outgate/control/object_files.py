"""The bytes of storage objects: one immutable file each, below a directory of the api's own.

A file has a name that is never used again, ``<object id>.<16 hex digits>``, and counts once a row of the store
names it. It is whole and on disk before that, and removed only after the row let go of it. What a crash leaves
in between is a file that no row names; the sweeper removes it once it is old enough not to be one under way.
"""

import errno
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from outgate.errors import SettingError
from outgate.store.errors import StoreError, StoreFullError

_NAME: Final = re.compile(r"obj_[0-9A-Za-z]{21}\.[0-9a-f]{16}\Z", re.ASCII)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class ObjectDraft:
    """A file on its way, written piece by piece; removed at the end of the block unless :meth:`keep` was called."""

    def __init__(self, directory: Path, object_id: str) -> None:
        self.name = f"{object_id}.{secrets.token_hex(8)}"
        self._path = directory / self.name
        self._is_kept = False
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _explain(error) from error

    def write(self, data: bytes) -> None:
        """Add ``data`` at the end. Raises StoreError."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _explain(error) from error

    def finish(self) -> None:
        """Have it on disk, whole, under its name. Raises StoreError."""
        try:
            os.fsync(self._descriptor)
            _sync_directory(self._path.parent)
        except OSError as error:
            raise _explain(error) from error

    def keep(self) -> None:
        """Leave the file at the end of the block: a row may name it now."""
        self._is_kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if not self._is_kept:
            self._path.unlink(missing_ok=True)


class ObjectFiles:
    """The directory. All methods do file I/O: call them on a thread where it matters."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory. Raises SettingError when it cannot be used."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"{self._directory}, for storage objects, cannot be made: {error.strerror}.") from error
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise SettingError(f"{self._directory}, for storage objects, cannot be written by the api's user.")

    def draft(self, object_id: str) -> ObjectDraft:
        """A new file for the object; use it as a context manager. Raises StoreError."""
        return ObjectDraft(self._directory, object_id)

    def open(self, name: str) -> int:
        """A descriptor to read from, the caller's to close. Raises FileNotFoundError and StoreError."""
        if not _NAME.match(name):
            raise StoreError(f"{name!r} is no name of an object's file.")
        try:
            return os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _explain(error) from error

    def remove(self, name: str) -> None:
        """Remove the file; one that is gone already is fine. Raises StoreError."""
        if not _NAME.match(name):
            raise StoreError(f"{name!r} is no name of an object's file.")
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise _explain(error) from error

    def list_older(self, before_ms: int) -> list[str]:
        """The files last written before that time. What is no object's file is left alone. Raises StoreError."""
        try:
            with os.scandir(self._directory) as entries:
                return [entry.name for entry in entries if _NAME.match(entry.name) and _written_ms(entry) < before_ms]
        except OSError as error:
            raise _explain(error) from error


def _written_ms(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
    except FileNotFoundError:
        # Removed since the directory was read: as young as can be, nobody's to remove.
        return 2**63


def _explain(error: OSError) -> StoreError:
    if error.errno in _FULL:
        return StoreFullError("The disk of storage objects is full; nothing was changed. Free some space first.")
    return StoreError(f"Storage objects cannot be read or written ({error.strerror}); nothing was changed.")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
