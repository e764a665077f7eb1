"""Where an image to be imported comes from: an OCI layout directory, or a tar archive of one, or of ``docker save``.

Both are read in place. A tar archive may be gzip-compressed as a whole; then it is unpacked to a
temporary file first, because its parts are needed in an order that is not the archive's.
"""

import gzip
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from outgate.runtime.layer_tar import LayerBounds, LayerError
from outgate.runtime.tar_stream import ByteSource, TarError, TarKind, TarStream

_GZIP_MAGIC: Final = b"\x1f\x8b"
_COPY_BYTES: Final = 1 << 20
_MEMBERS_MAX: Final = 10_000
"""Files in an archive: a handful for each layer, of which an image has at most 127."""


class ImageArchive(Protocol):
    """Files by name."""

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""

    def open(self, name: str) -> io.BufferedReader:
        """The file, to be closed by the caller. Raises :class:`LayerError` if there is none."""


@contextmanager
def open_archive(path: Path, bounds: LayerBounds) -> Iterator[ImageArchive]:
    """The archive at ``path``. Raises :class:`LayerError` and :class:`TarError` if it is neither form."""
    if path.is_dir():
        yield _DirectoryArchive(path)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise LayerError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        if file.read(2) != _GZIP_MAGIC:
            file.seek(0)
            yield _TarArchive(file)
            return
        file.seek(0)
        with tempfile.TemporaryFile() as whole:
            _inflate(file, whole, bounds.bytes_max)
            whole.seek(0)
            yield _TarArchive(whole)


def _inflate(source: BinaryIO, target: BinaryIO, bytes_max: int) -> None:
    with gzip.GzipFile(fileobj=source) as stream:
        total = 0
        while block := read_inflated(stream, _COPY_BYTES):
            total += len(block)
            if total > bytes_max:
                raise LayerError(f"The archive holds more than {bytes_max} bytes.")
            target.write(block)


def read_inflated(stream: ByteSource, size: int) -> bytes:
    """Read from a gzip stream. Raises :class:`TarError` when it is damaged."""
    try:
        return stream.read(size)
    except (EOFError, OSError, zlib.error) as error:
        raise TarError(f"The compressed data are damaged: {error}.") from error


class _DirectoryArchive:
    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def open(self, name: str) -> io.BufferedReader:
        try:
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise LayerError(f"The image lacks the file {name} ({error.strerror}).") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise LayerError(f"{name} of the image is not a regular file.")
        return io.BufferedReader(io.FileIO(descriptor), _COPY_BYTES)


class _TarArchive:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members = _index_members(file)

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> io.BufferedReader:
        if name not in self._members:
            raise LayerError(f"The image lacks the file {name}.")
        offset, size = self._members[name]
        return io.BufferedReader(_Window(self._file, offset, size), _COPY_BYTES)


class _Window(io.RawIOBase):
    """A part of a file that others read parts of too: each read goes to its own place."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._file.seek(self._position)
        data = self._file.read(min(len(buffer), self._end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _index_members(file: BinaryIO) -> Mapping[str, tuple[int, int]]:
    members: dict[str, tuple[int, int]] = {}
    for count, entry in enumerate(TarStream(file, file.seek), 1):
        if count > _MEMBERS_MAX:
            raise LayerError(f"The archive holds more than {_MEMBERS_MAX} files; it is no image.")
        if entry.kind is TarKind.FILE:
            name = entry.name.decode(errors="replace").removeprefix("./")
            members[name] = (entry.offset, entry.size_bytes)
    return members
