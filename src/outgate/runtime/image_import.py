"""Importing an image: its layers unpacked and verified, then entered under its names, all of it or nothing."""

import gzip
import hashlib
import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from outgate.errors import InvalidValueError
from outgate.runtime.image_archive import ImageArchive, open_archive, read_inflated
from outgate.runtime.image_manifest import LayerSource, read_manifest
from outgate.runtime.images import ImageDocument, ImageStore, ImageSummary, check_name
from outgate.runtime.layer_tar import LayerBounds, LayerError, unpack_layer
from outgate.runtime.tar_stream import ByteSource

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_READ_BYTES: Final = 1 << 18
_ENTRY_BYTES: Final = 2048
"""What an entry takes in a tar archive besides its data: a header, and often an extended one with its own."""


def import_image(
    store: ImageStore, path: Path, names: Sequence[str] = (), bounds: LayerBounds | None = None
) -> ImageSummary:
    """Import the one image at ``path`` that is for this machine, as ``names`` or else the names it brings.

    Blocks, for as long as unpacking takes. Raises :class:`InvalidValueError`, :class:`LayerError`,
    :class:`outgate.runtime.tar_stream.TarError` and OSError; the store is as it was before then.
    """
    limits = bounds or LayerBounds()
    with store.layers.writing(), open_archive(path, limits) as archive:
        manifest = read_manifest(archive)
        given = tuple(names) or manifest.names
        if not given:
            raise InvalidValueError("The image brings no name; give it one.", field="name")
        for name in given:
            check_name(name)
        try:
            sizes = {layer.diff_id: _store_layer(store, archive, layer, limits) for layer in manifest.layers}
        except BaseException:
            store.remove_orphans()
            raise
        image = ImageDocument(
            digest=manifest.digest,
            layers=tuple(layer.diff_id for layer in manifest.layers),
            environment=manifest.environment,
        )
        store.register(image, given, sizes)
    return next(summary for summary in store.summaries() if summary.digest == manifest.digest)


def _store_layer(store: ImageStore, archive: ImageArchive, layer: LayerSource, bounds: LayerBounds) -> int | None:
    """Unpack a layer that is not in the store yet; returns how many bytes it holds, None if it was there."""
    if store.layers.has(layer.diff_id):
        return None
    unpacked_bytes = 0

    def fill(directory: Path) -> str:
        nonlocal unpacked_bytes
        with archive.open(layer.file) as file:
            unpacked_bytes = _unpack_verified(file, layer, directory, bounds)
        return layer.diff_id

    store.layers.add(fill)
    return unpacked_bytes


def _unpack_verified(file: io.BufferedReader, layer: LayerSource, directory: Path, bounds: LayerBounds) -> int:
    total_max = bounds.bytes_max + bounds.entries_max * _ENTRY_BYTES
    packed = _Hashed(file, total_max)
    magic = file.peek(4)[:4]
    if magic == _ZSTD_MAGIC:
        raise LayerError(
            f"{layer.file} is compressed by zstd; convert the image to gzip first (skopeo and docker can)."
        )
    if magic[:2] == _GZIP_MAGIC:
        with closing(gzip.GzipFile(fileobj=packed, mode="rb")) as inflated:
            plain = _Hashed(_Inflated(inflated), total_max)
            unpacked_bytes = unpack_layer(plain, directory, bounds)
            plain.read_to_end()
    else:
        plain = _Hashed(packed, total_max)
        unpacked_bytes = unpack_layer(plain, directory, bounds)
        plain.read_to_end()
    packed.read_to_end()
    if layer.digest is not None and packed.digest != layer.digest:
        raise LayerError(f"{layer.file} does not have the digest {layer.digest} that the manifest says.")
    if plain.digest != layer.diff_id:
        raise LayerError(f"{layer.file} unpacks to something else than {layer.diff_id}, which the configuration says.")
    return unpacked_bytes


class _Inflated:
    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        return read_inflated(self._stream, size)


class _Hashed(io.RawIOBase):
    """Passes bytes on and takes their digest, up to a bound."""

    def __init__(self, source: ByteSource, bytes_max: int) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._left = bytes_max

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(_READ_BYTES if size < 0 else size)
        self._hash.update(data)
        self._left -= len(data)
        if self._left < 0:
            raise LayerError("The layer unpacks to more bytes than are allowed.")
        return data

    def read_to_end(self) -> None:
        """Take what the archive's reader left: the digest is over everything."""
        while self.read(_READ_BYTES):
            pass
