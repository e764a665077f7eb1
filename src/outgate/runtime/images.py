"""Images: an ordered list of layers and what their programs expect around them, under names.

``stock`` is made anew from this host when the agent starts (:meth:`ImageStore.refresh_stock`); others are
imported once (:mod:`outgate.runtime.image_import`) or sealed from a sandbox's disk (:mod:`outgate.runtime.snapshots`).
Sandboxes keep running on layers whose image was removed: a layer goes when neither an image nor a sandbox uses it.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from outgate.errors import InvalidValueError
from outgate.runtime.base import ImageNotFoundError, SandboxError
from outgate.runtime.disk import SandboxDisks, write_atomically
from outgate.runtime.layers import LayerStore, digest_tree, is_sealed
from outgate.runtime.stock import TrustedAuthority, build_stock_layer, find_host_directories

STOCK: Final = "stock"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,254}\Z", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)


class ImageDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One image as stored. ``layers``: their names, lowest first."""

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


@dataclass(frozen=True, slots=True)
class SealedLayer:
    """A layer that came out of a sandbox: where it is before it is in the store, and what it takes up there."""

    directory: Path
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

    def refresh_stock(self, authority: TrustedAuthority | None = None) -> None:
        """Make the stock image as this host is now, trusting ``authority`` besides. Sandboxes keep the former one."""

        def fill(directory: Path) -> str:
            build_stock_layer(directory, authority=authority)
            return digest_tree(directory)

        with self.layers.writing():
            digest = self.layers.add(fill)
            directories = tuple(str(directory) for directory in find_host_directories())
            names = self._read().names
            # Whoever calls it by another name means it as it is now, too.
            called = {name for name, of in names.items() if of == names.get(STOCK)}
            self._register(ImageDocument(digest, (digest,), host_directories=directories), {STOCK, *called}, {})

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
        with self.layers.locked(exclusive=True):
            catalogue = self._read()
            image = _find(catalogue, reference)
            doomed = [name for name, digest in catalogue.names.items() if digest == image.digest]
            if reference in catalogue.names:
                doomed = [reference]
            if STOCK in doomed:
                raise InvalidValueError("The stock image cannot be removed.")
            for name in doomed:
                del catalogue.names[name]
            _drop_unnamed(catalogue)
            self._write(catalogue)
        self.collect()

    def remove_orphans(self) -> None:
        """Remove images that have no name and layers that nobody uses. Only inside ``layers.writing()``."""
        with self.layers.locked(exclusive=True):
            self._write_without_orphans(self._read())

    def collect(self) -> None:
        """Do the same if nobody is writing; whoever is will do it at the end (:meth:`register`)."""
        with self.layers.writing_if_idle() as is_writing:
            if is_writing:
                self.remove_orphans()

    def is_known(self, layers: Collection[Path]) -> bool:
        """Whether each of ``layers`` belongs to an image; one that does not may be unused."""
        known = {self.layers.path(layer) for image in self._read().images.values() for layer in image.layers}
        return known.issuperset(layers)

    def find_sealed_size(self, name: str) -> int | None:
        """How many bytes the sealed layers of the image of that name hold; None when there is no such image."""
        catalogue = self._read()
        if name not in catalogue.names:
            return None
        layers = catalogue.images[catalogue.names[name]].layers
        return sum(catalogue.layer_bytes.get(layer, 0) for layer in layers if is_sealed(layer))

    def read_images(self) -> Mapping[str, ImageDocument]:
        """All images by name. Their layers stay only while the store's layers are locked."""
        catalogue = self._read()
        return {name: catalogue.images[digest] for name, digest in catalogue.names.items()}

    def read_sizes(self) -> Mapping[str, int]:
        """How many bytes each layer holds that belongs to an image, as far as that is known."""
        return self._read().layer_bytes

    def publish(
        self, name: str, image: ImageDocument, sealed: Mapping[str, SealedLayer], adopt: Callable[[], None]
    ) -> None:
        """Add an image under ``name`` together with its ``sealed`` layers: all at once or, by a crash, not at all.

        Layers that are in the store already are kept by a sandbox's record meanwhile. ``adopt`` is called when all
        layers are in their place, and before anybody could remove them. Raises :class:`InvalidValueError` for a
        name that cannot be one, and OSError.
        """
        check_name(name)
        with self.layers.locked(exclusive=True):
            catalogue = self._read()
            catalogue.images[image.digest] = image
            catalogue.names[name] = image.digest
            for layer, content in sealed.items():
                if not self.layers.has(layer):
                    content.directory.rename(self.layers.path(layer))
                catalogue.layer_bytes[layer] = content.size_bytes
            adopt()
            self._write(catalogue)

    def _register(self, image: ImageDocument, names: Collection[str], layer_bytes: Mapping[str, int | None]) -> None:
        with self.layers.locked(exclusive=True):
            catalogue = self._read()
            catalogue.images[image.digest] = image
            catalogue.names.update(dict.fromkeys(names, image.digest))
            catalogue.layer_bytes.update({layer: size for layer, size in layer_bytes.items() if size is not None})
            self._write_without_orphans(catalogue)

    def _write_without_orphans(self, catalogue: _Catalogue) -> None:
        """Drop images that have no name, then layers that nobody uses."""
        _drop_unnamed(catalogue)
        kept = {layer for image in catalogue.images.values() for layer in image.layers}
        catalogue.layer_bytes = {layer: size for layer, size in catalogue.layer_bytes.items() if layer in kept}
        self._write(catalogue)
        self.layers.remove_unused({self.layers.path(layer) for layer in kept} | self._layers_of_sandboxes())

    def _layers_of_sandboxes(self) -> set[Path]:
        records = (disk.read_record() for _, disk in SandboxDisks(self._root))
        return {layer for record in records if record is not None for layer in record.kept_layers()}

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


def _drop_unnamed(catalogue: _Catalogue) -> None:
    named = set(catalogue.names.values())
    catalogue.images = {digest: image for digest, image in catalogue.images.items() if digest in named}


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
