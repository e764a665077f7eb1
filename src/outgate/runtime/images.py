"""Images: an ordered list of layers and what their programs expect around them, under names.

``stock`` is made anew from this host when the agent starts (:meth:`ImageStore.refresh_stock`); all others
are imported once (:mod:`outgate.runtime.image_import`). Sandboxes keep running on layers whose image was
removed: a layer goes when neither an image nor a sandbox uses it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from outgate.errors import InvalidValueError
from outgate.runtime.base import ImageNotFoundError, SandboxError
from outgate.runtime.disk import SandboxDisks, write_atomically
from outgate.runtime.layers import LayerStore, digest_tree
from outgate.runtime.stock import build_stock_layer, find_host_directories

STOCK: Final = "stock"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,254}\Z", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)


class ImageDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One image as stored. ``layers``: digests, lowest first."""

    digest: str
    layers: tuple[str, ...]
    environment: dict[str, str] = {}
    host_directories: tuple[str, ...] = ()


class _Catalogue(msgspec.Struct, forbid_unknown_fields=True):
    images: dict[str, ImageDocument] = {}
    names: dict[str, str] = {}
    layer_bytes: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """What a sandbox of an image is made of. ``layers``: topmost first, below them ``host_directories``."""

    layers: tuple[Path, ...]
    host_directories: tuple[PurePosixPath, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One image as it is listed. ``size_bytes``: of all files in its layers, those shared with others too."""

    digest: str
    names: tuple[str, ...]
    layers: int
    size_bytes: int


class ImageStore:
    """The images of one Outgate instance. Usable from several processes at once; all methods block."""

    def __init__(self, root: Path) -> None:
        self.layers = LayerStore(root)
        self._file = root / "images.json"
        self._root = root

    def ensure(self) -> None:
        """Make the store's directories."""
        self.layers.ensure()

    @contextmanager
    def resolve(self, reference: str) -> Iterator[ImageRoot]:
        """The image of that name or digest; its layers stay while the context lasts.

        Whoever keeps using it has put the layers into a sandbox's record by then. Raises
        :class:`ImageNotFoundError`.
        """
        with self.layers.locked(exclusive=False):
            image = _find(self._read(), reference)
            yield ImageRoot(
                tuple(self.layers.path(digest) for digest in reversed(image.layers)),
                tuple(PurePosixPath(directory) for directory in image.host_directories),
                image.environment,
            )

    def summaries(self) -> tuple[ImageSummary, ...]:
        """All images, by first name."""
        catalogue = self._read()
        names: dict[str, list[str]] = {digest: [] for digest in catalogue.images}
        for name, digest in sorted(catalogue.names.items()):
            names[digest].append(name)
        summaries = (
            ImageSummary(
                image.digest,
                tuple(names[digest]),
                len(image.layers),
                sum(catalogue.layer_bytes.get(layer, 0) for layer in image.layers),
            )
            for digest, image in catalogue.images.items()
        )
        return tuple(sorted(summaries, key=lambda summary: (summary.names, summary.digest)))

    def register(self, image: ImageDocument, names: Collection[str], layer_bytes: Mapping[str, int | None]) -> None:
        """Add an image whose layers are stored, under ``names`` (which move to it if they were another's).

        ``layer_bytes`` gives the sizes of layers that were not there before, None for the others.
        Only inside ``layers.writing()``. Raises :class:`InvalidValueError` for a name that cannot be one.
        """
        for name in names:
            check_name(name)
        self._register(image, names, layer_bytes)

    def refresh_stock(self) -> None:
        """Make the stock image as this host is now. Sandboxes that run on the former one keep it."""

        def fill(directory: Path) -> str:
            build_stock_layer(directory)
            return digest_tree(directory)

        with self.layers.writing():
            digest = self.layers.add(fill)
            directories = tuple(str(directory) for directory in find_host_directories())
            self._register(ImageDocument(digest, (digest,), host_directories=directories), (STOCK,), {})

    def alias(self, reference: str, name: str) -> None:
        """Let ``name`` mean the image of ``reference`` as well.

        Raises :class:`ImageNotFoundError` and :class:`InvalidValueError`.
        """
        check_name(name)
        with self.layers.locked(exclusive=True):
            catalogue = self._read()
            catalogue.names[name] = _find(catalogue, reference).digest
            self._write(catalogue)

    def remove(self, reference: str) -> None:
        """Remove a name, and the image with its last name; a digest removes image and names.

        Raises :class:`ImageNotFoundError`, and :class:`InvalidValueError` for the stock image.
        """
        with self.layers.writing(), self.layers.locked(exclusive=True):
            catalogue = self._read()
            image = _find(catalogue, reference)
            doomed = [name for name, digest in catalogue.names.items() if digest == image.digest]
            if reference in catalogue.names:
                doomed = [reference]
            if STOCK in doomed:
                raise InvalidValueError("The stock image cannot be removed.")
            for name in doomed:
                del catalogue.names[name]
            self._write_without_orphans(catalogue)

    def remove_orphans(self) -> None:
        """Remove images that have no name and layers that nobody uses. Only inside ``layers.writing()``."""
        with self.layers.locked(exclusive=True):
            self._write_without_orphans(self._read())

    def _register(self, image: ImageDocument, names: Collection[str], layer_bytes: Mapping[str, int | None]) -> None:
        with self.layers.locked(exclusive=True):
            catalogue = self._read()
            catalogue.images[image.digest] = image
            catalogue.names.update(dict.fromkeys(names, image.digest))
            catalogue.layer_bytes.update({layer: size for layer, size in layer_bytes.items() if size is not None})
            self._write_without_orphans(catalogue)

    def _write_without_orphans(self, catalogue: _Catalogue) -> None:
        """Drop images that have no name, then layers that nobody uses."""
        named = set(catalogue.names.values())
        catalogue.images = {digest: image for digest, image in catalogue.images.items() if digest in named}
        kept = {layer for image in catalogue.images.values() for layer in image.layers}
        catalogue.layer_bytes = {layer: size for layer, size in catalogue.layer_bytes.items() if layer in kept}
        self._write(catalogue)
        self.layers.remove_unused({self.layers.path(layer) for layer in kept} | self._layers_of_sandboxes())

    def _layers_of_sandboxes(self) -> set[Path]:
        records = (disk.read_record() for _, disk in SandboxDisks(self._root))
        return {layer for record in records if record is not None for layer in record.layers}

    def _read(self) -> _Catalogue:
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return _Catalogue()
        try:
            return msgspec.json.decode(data, type=_Catalogue)
        except msgspec.DecodeError as error:
            raise SandboxError(f"{self._file} cannot be read ({error}).") from error

    def _write(self, catalogue: _Catalogue) -> None:
        write_atomically(self._file, msgspec.json.encode(catalogue))


def _find(catalogue: _Catalogue, reference: str) -> ImageDocument:
    digest = catalogue.names.get(reference, reference)
    if digest not in catalogue.images:
        known = ", ".join(sorted(catalogue.names)) or "none"
        raise ImageNotFoundError(f"There is no image {reference[:300]!r}; there are: {known[:1000]}.")
    return catalogue.images[digest]


def check_name(name: str) -> None:
    """Raises :class:`InvalidValueError` for a name that an image cannot be given."""
    if name == STOCK or _DIGEST.match(name) or not _NAME.match(name):
        raise InvalidValueError(
            f"{name[:300]!r} cannot name an image: letters, digits and any of '_.:/@-', at most 255 of them, "
            f"neither {STOCK!r} nor a digest."
        )
