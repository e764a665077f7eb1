"""Unpacking one image layer (OCI image specification, "Image Layer Filesystem Changeset").

Runs as root on bytes of anybody's making. Each name is walked part by part from the layer's directory
with ``O_NOFOLLOW``, so nothing that the archive made earlier, no link above all, leads out of it; entries
are made with ``*at`` calls beside the descriptor that the walk ended with. Whiteouts become the kernel's.
What an ordinary image has no use for is refused, with the entry's name in the message.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from outgate.runtime.base import SandboxError
from outgate.runtime.tar_stream import ByteSource, TarEntry, TarKind, TarStream
from outgate.runtime.usermap import IDS_PER_SANDBOX

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_DIRECTORY_MODE: Final = 0o755
"""Of directories that an archive uses without holding them."""
_COPY_BYTES: Final = 1 << 18
_DEPTH_MAX: Final = 256
"""Directories in each other. Programs stop at PATH_MAX, 4,096 bytes; real images have some 30."""
_ATTRIBUTES_ALLOWED: Final = ("security.capability",)
"""File capabilities, which are valid inside the sandbox's user namespace alone. Never ``trusted.*``: overlayfs
obeys those, and one of them redirects a directory."""


class LayerError(SandboxError):
    """A layer holds something that an image has no business to hold, or is larger than allowed."""

    code = "bad_layer"


@dataclass(frozen=True, slots=True)
class LayerBounds:
    """What one layer may come to. The defaults are some ten times what the largest common images hold."""

    bytes_max: int = 32 << 30
    entries_max: int = 2_000_000


def unpack_layer(source: ByteSource, layer: Path, bounds: LayerBounds) -> int:
    """Unpack a tar archive into the empty directory ``layer``; returns how many bytes its files hold.

    Raises :class:`LayerError`, :class:`outgate.runtime.tar_stream.TarError` and OSError; what was made
    until then stays.
    """
    layer.chmod(0o755)
    root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with _Unpacker(root, bounds) as unpacker:
            return unpacker.unpack(TarStream(source))
    finally:
        os.close(root)


class _Unpacker:
    def __init__(self, root: int, bounds: LayerBounds) -> None:
        self._root = root
        self._bounds = bounds
        self._bytes = 0
        # The directory of the last entry, kept open: archives list a directory's files one after the other.
        self._parent_name: tuple[bytes, ...] | None = None
        self._parent = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_parent()

    def unpack(self, archive: TarStream) -> int:
        for count, entry in enumerate(archive, 1):
            if count > self._bounds.entries_max:
                raise LayerError(f"The layer holds more than {self._bounds.entries_max} entries.")
            parts = split_name(entry.name, entry)
            if parts:
                self._unpack_entry(archive, entry, parts)
        return self._bytes

    def _unpack_entry(self, archive: TarStream, entry: TarEntry, parts: tuple[bytes, ...]) -> None:
        if max(entry.uid, entry.gid) >= IDS_PER_SANDBOX:
            raise LayerError(f"{_shown(entry)} belongs to id {max(entry.uid, entry.gid)}; 65535 is the largest.")
        parent = self._open_parent(parts[:-1], entry)
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            _make_whiteout(parent, name, entry)
            return
        match entry.kind:
            case TarKind.FILE:
                self._make_file(archive, entry, parent, name)
            case TarKind.DIRECTORY:
                self._make_directory(entry, parent, name, parts)
            case TarKind.SYMBOLIC_LINK:
                _make_symbolic_link(entry, parent, name)
            case TarKind.HARD_LINK:
                self._make_hard_link(entry, parent, name)
            case TarKind.FIFO:
                _clear(parent, name, entry)
                os.mkfifo(name, dir_fd=parent)
                os.chmod(name, entry.mode, dir_fd=parent)
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            case TarKind.CHARACTER_DEVICE | TarKind.BLOCK_DEVICE:
                # Old base images carry a /dev; a sandbox gets its own mounted there. Elsewhere a device could
                # only be meant to get at the host, or, as 0/0, to smuggle in a whiteout.
                if parts[0] != b"dev":
                    raise LayerError(f"{_shown(entry)} is a device; images may hold none outside /dev.")

    def _make_file(self, archive: TarStream, entry: TarEntry, parent: int, name: bytes) -> None:
        self._bytes += entry.size_bytes
        if self._bytes > self._bounds.bytes_max:
            raise LayerError(f"The layer holds more than {self._bounds.bytes_max} bytes.")
        _clear(parent, name, entry)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            while block := archive.read_data(_COPY_BYTES):
                _write_all(file, block)
            os.fchown(file, entry.uid, entry.gid)
            # After the change of owner, which takes set-user-id bits and capabilities away.
            os.fchmod(file, entry.mode)
            for key in _ATTRIBUTES_ALLOWED:
                if key in entry.attributes:
                    os.setxattr(file, key, entry.attributes[key])
            os.utime(file, (entry.mtime_s, entry.mtime_s))
        finally:
            os.close(file)

    def _make_directory(self, entry: TarEntry, parent: int, name: bytes, parts: tuple[bytes, ...]) -> None:
        _make_missing_directory(parent, name)
        if not _is_directory(parent, name):
            _clear(parent, name, entry)
            _make_missing_directory(parent, name)
        directory = _open_directory(parent, name, entry)
        try:
            os.chown(f"/proc/self/fd/{directory}", entry.uid, entry.gid)
            Path(f"/proc/self/fd/{directory}").chmod(entry.mode)
        finally:
            os.close(directory)
        if self._parent_name is not None and self._parent_name[: len(parts)] == parts:
            self._drop_parent()

    def _make_hard_link(self, entry: TarEntry, parent: int, name: bytes) -> None:
        target = split_name(entry.link, entry)
        if not target:
            raise LayerError(f"{_shown(entry)} is a hard link to nothing.")
        _clear(parent, name, entry)
        source = self._walk(target[:-1], entry, create=False)
        try:
            try:
                status = os.lstat(target[-1], dir_fd=source)
            except FileNotFoundError:
                raise LayerError(f"{_shown(entry)} is a hard link to a file that the layer does not hold.") from None
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                raise LayerError(f"{_shown(entry)} is a hard link to something that is not a file.")
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _open_parent(self, directories: tuple[bytes, ...], entry: TarEntry) -> int:
        if directories != self._parent_name:
            self._drop_parent()
            self._parent = self._walk(directories, entry, create=True)
            self._parent_name = directories
        return self._parent

    def _drop_parent(self) -> None:
        if self._parent_name is not None:
            os.close(self._parent)
            self._parent_name = None

    def _walk(self, directories: tuple[bytes, ...], entry: TarEntry, *, create: bool) -> int:
        """A descriptor of the directory that is ``directories`` below the layer, to be closed by the caller."""
        reached = os.dup(self._root)
        for name in directories:
            try:
                if create:
                    _make_missing_directory(reached, name)
                following = _open_directory(reached, name, entry)
            finally:
                os.close(reached)
            reached = following
        return reached


def split_name(name: bytes, entry: TarEntry) -> tuple[bytes, ...]:
    """The parts of an entry's name, taken as below the layer's root; empty for the root itself.

    Raises :class:`LayerError` for a name that climbs.
    """
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise LayerError(f"{_shown(entry)} climbs out of the layer with '..'.")
    if len(parts) > _DEPTH_MAX or any(len(part) > os.pathconf("/", "PC_NAME_MAX") or b"\0" in part for part in parts):
        raise LayerError(f"{_shown(entry)} has a name that no file can have.")
    return parts


def _make_symbolic_link(entry: TarEntry, parent: int, name: bytes) -> None:
    if b"\0" in entry.link:
        raise LayerError(f"{_shown(entry)} is a link to a name that no file can have.")
    _clear(parent, name, entry)
    os.symlink(entry.link, name, dir_fd=parent)
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)


def _make_whiteout(parent: int, name: bytes, entry: TarEntry) -> None:
    if name == _OPAQUE:
        os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
        return
    hidden = name.removeprefix(_WHITEOUT)
    if hidden.startswith(_WHITEOUT):
        # .wh..wh.plnk and the like: an older file system's own notes, of no meaning here.
        return
    if hidden in (b"", b".", b".."):
        raise LayerError(f"{_shown(entry)} whites out nothing that can be.")
    # What the layer itself holds under that name stays: a whiteout is about the layers below.
    with suppress(FileExistsError):
        os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent)


def _make_missing_directory(parent: int, name: bytes) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
        # mkdir's own mode is subject to the process's mask.
        os.chmod(name, _DIRECTORY_MODE, dir_fd=parent)


def _open_directory(parent: int, name: bytes, entry: TarEntry) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except (NotADirectoryError, FileNotFoundError):
        raise LayerError(
            f"{_shown(entry)} passes through {name.decode(errors='replace')!r}, which is no directory of the layer."
        ) from None


def _is_directory(parent: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)


def _clear(parent: int, name: bytes, entry: TarEntry) -> None:
    """Remove what an earlier entry of that name made; a directory may hold others' files and is not replaced."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise LayerError(f"{_shown(entry)} replaces a directory of the same layer.") from None


def _write_all(file: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(file, rest) :]


def _shown(entry: TarEntry) -> str:
    return f"The entry {entry.name[:200].decode(errors='replace')!r}"
