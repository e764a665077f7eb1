"""Archives that somebody else made: the stream of entries, a layer unpacked by root, an image's documents."""

import atexit
import io
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from outgate.runtime.image_archive import _TarArchive
from outgate.runtime.image_manifest import read_environment, read_manifest
from outgate.runtime.layer_tar import LayerBounds, LayerError, unpack_layer
from outgate.runtime.tar_stream import TarEntry, TarError, TarStream

_HELD_BYTES_MAX = 1 << 20
_BOUNDS = LayerBounds(bytes_max=1 << 16, entries_max=100)


class _Trickle:
    """A source that gives as little as it may, and counts."""

    def __init__(self, data: bytes, size: int) -> None:
        self._source = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._source.read(min(size, self._size))


def read_entries(data: bytes) -> None:
    whole = _read(TarStream(io.BytesIO(data)))
    assert _read(TarStream(_Trickle(data, 7))) == whole, "entries that depend on how the bytes come"
    for entry, content in whole[0]:
        assert content == data[entry.offset : entry.offset + entry.size_bytes]
        assert len(content) <= entry.size_bytes
        assert min(entry.size_bytes, entry.mtime_s, entry.uid, entry.gid) >= 0
        assert sum(map(len, (entry.name, entry.link, *entry.attributes.values()))) <= _HELD_BYTES_MAX
    source = io.BytesIO(data)
    seen, is_good = _read(TarStream(source, source.seek), with_data=False)
    if whole[1]:
        assert is_good
        assert [entry for entry, _ in seen] == [entry for entry, _ in whole[0]]


def _read(stream: TarStream, *, with_data: bool = True) -> tuple[list[tuple[TarEntry, bytes]], bool]:
    """The entries with their data, and whether the archive makes sense to its end."""
    entries: list[tuple[TarEntry, bytes]] = []
    try:
        for entry in stream:
            content = b""
            while with_data and (block := stream.read_data(100)):
                content += block
            entries.append((entry, content))
    except TarError:
        return entries, False
    return entries, True


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="outgate-fuzz-"))
    atexit.register(shutil.rmtree, place)
    (place / "canary").write_text("sings")
    return place


def unpack(data: bytes) -> None:
    place = _place()
    layer = place / "layer"
    layer.mkdir()
    try:
        size = unpack_layer(io.BytesIO(data), layer, _BOUNDS)
        assert 0 <= size <= _BOUNDS.bytes_max
        _check_tree(layer)
    except (LayerError, TarError, OSError):
        pass
    finally:
        shutil.rmtree(layer)
    assert [file.name for file in place.iterdir()] == ["canary"], "something was made outside the layer"
    assert (place / "canary").read_text() == "sings"
    assert (place / "canary").stat().st_nlink == 1


def _check_tree(layer: Path) -> None:
    for directory, names, files in os.walk(layer):
        for name in (*names, *files):
            status = (Path(directory) / name).lstat()
            is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            assert is_whiteout or not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)), "a device"
            assert max(status.st_uid, status.st_gid) < 1 << 16


def read_image(data: bytes) -> None:
    """An archive of an image; and its configuration alone, which builds leave."""
    for read in (lambda: read_environment(data), lambda: read_manifest(_TarArchive(io.BytesIO(data)), "x86_64")):
        try:
            read()
        except (LayerError, TarError):
            continue
