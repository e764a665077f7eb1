"""Between the image store and buildah: which images a build may name, and taking over the image that it made.

What buildah leaves is of the build's making, so nothing there is believed: names are opened beneath the build's own
directory without following links, texts are read within bounds, and the layers are the build's own directories, which
become layers of the store by being renamed. None of its processes is left by then.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import msgspec

from outgate.runtime.base import SandboxError
from outgate.runtime.build_bases import BuildBase, chain_layers, data_file_name, reference_names
from outgate.runtime.build_marks import spell_marks_for_builds, spell_marks_for_sandboxes, walk_directories
from outgate.runtime.build_stage import STORAGE, build_directory
from outgate.runtime.image_manifest import read_environment
from outgate.runtime.images import ImageDocument, ImageStore, SealedLayer
from outgate.runtime.layers import make_sealed_name
from outgate.runtime.rootfs import LAYERS_MAX
from outgate.runtime.syscalls import sync_filesystem

RESULT_NAME: Final = "localhost/outgate/result:latest"
"""Under which name the build leaves the image that it made, in its own storage."""
BASES_MAX: Final = 200
"""Images that a Dockerfile can choose among. Each layer is one mount, some 30 µs, at the start of each build."""
_OWNED_NAMES: Final = ("bpt_", "snp_")
"""Names of blueprints' and snapshots' images, which belong to accounts and are nobody else's to build upon."""
_NOTES_BYTES_MAX: Final = 16 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)

Document = TypeVar("Document")


class _Image(msgspec.Struct, frozen=True):
    id: str
    names: tuple[str, ...] = ()
    layer: str = ""


class _Layer(msgspec.Struct, frozen=True):
    id: str
    parent: str = ""


@dataclass(frozen=True, slots=True)
class _Built:
    """What buildah made. ``layer_ids``: the new ones, lowest first; below them is ``base``, or nothing."""

    layer_ids: tuple[str, ...]
    base: BuildBase | None
    environment: dict[str, str]


def find_bases(images: ImageStore) -> tuple[BuildBase, ...]:
    """The images that operators gave names which a Dockerfile can say. Only while the store's layers are locked.

    Raises :class:`SandboxError` when there are too many.
    """
    named: dict[str, list[str]] = {}
    known = images.read_images()
    for name, image in sorted(known.items()):
        if reference_names(name) and not name.startswith(_OWNED_NAMES) and _can_be_layer(image):
            named.setdefault(image.digest, []).append(name)
    if len(named) > BASES_MAX:
        raise SandboxError(f"There are more than {BASES_MAX} images that builds may name; remove some of them.")
    return tuple(
        BuildBase(
            digest,
            tuple(names),
            tuple(images.layers.path(layer) for layer in known[names[0]].layers),
            known[names[0]].host_directories,
            known[names[0]].environment,
        )
        for digest, names in named.items()
    )


def prepare_bases(bases: tuple[BuildBase, ...]) -> None:
    """Make the layers fit for builds. Takes a while for a large image that was never built upon."""
    for layer in {layer for base in bases for layer in base.layers}:
        spell_marks_for_builds(layer)


def take_built_image(images: ImageStore, disk: Path, bases: tuple[BuildBase, ...], name: str) -> int:
    """Make what buildah left on ``disk`` image ``name``; returns how many bytes its new layers hold.

    Raises :class:`SandboxError` when it left nothing that could be one.
    """
    own = build_directory(disk)
    built = _read_built(own, bases)
    made: dict[str, SealedLayer] = {}
    for layer_id in built.layer_ids:
        directory = own / STORAGE / "overlay" / layer_id / "diff"
        # Checked to be no link, on the way there either; and nobody is left who could change that.
        os.close(_open_beneath(own, PurePosixPath(STORAGE) / "overlay" / layer_id / "diff", _DIRECTORY))
        spell_marks_for_sandboxes(directory)
        made[make_sealed_name()] = SealedLayer(directory, _measure(directory))
    sync_filesystem(own)
    base = built.base
    below = () if base is None else tuple(images.layers.name_of(layer) for layer in base.layers)
    if not 0 < len(below) + len(made) <= LAYERS_MAX:
        count = len(below) + len(made)
        raise SandboxError(f"The build made an image of {count} layers; 1 to {LAYERS_MAX} can be used.")
    image = ImageDocument(
        digest=make_sealed_name(),
        layers=(*below, *made),
        environment=built.environment,
        host_directories=() if base is None else base.host_directories,
    )
    images.publish(name, image, made, lambda: None)
    return sum(layer.size_bytes for layer in made.values())


def _can_be_layer(image: ImageDocument) -> bool:
    """A directory of the host that is a mount of its own cannot appear inside another's tree (see build_stage)."""
    return not any(Path(directory).is_mount() for directory in image.host_directories)


def _read_built(own: Path, bases: tuple[BuildBase, ...]) -> _Built:
    notes = PurePosixPath(STORAGE) / "overlay-images"
    found = _decode(_read_beneath(own, notes / "images.json", _NOTES_BYTES_MAX), tuple[_Image, ...])
    image = next((image for image in found if RESULT_NAME in image.names and _ID.match(image.id)), None)
    if image is None:
        raise SandboxError("The build left no image.")
    key = data_file_name(f"sha256:{image.id}")
    configuration = _read_beneath(own, notes / image.id / key, _NOTES_BYTES_MAX)
    layer_ids, base = _find_chain(own, image.layer, bases)
    return _Built(layer_ids, base, read_environment(configuration))


def _find_chain(own: Path, top: str, bases: tuple[BuildBase, ...]) -> tuple[tuple[str, ...], BuildBase | None]:
    tops = {chain_layers(base)[-1].id: base for base in bases}
    notes = PurePosixPath(STORAGE) / "overlay-layers" / "layers.json"
    layers = _decode(_read_beneath(own, notes, _NOTES_BYTES_MAX), tuple[_Layer, ...])
    parents = {layer.id: layer.parent for layer in layers}
    chain: list[str] = []
    while top and top not in tops:
        if not _ID.match(top) or top not in parents or len(chain) >= LAYERS_MAX:
            raise SandboxError("The build left layers that do not fit together.")
        chain.append(top)
        top = parents[top]
    return tuple(reversed(chain)), tops.get(top)


def _decode(data: bytes, kind: type[Document]) -> Document:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SandboxError(f"What the build left cannot be read ({error}).") from error


def _read_beneath(root: Path, name: PurePosixPath, bytes_max: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = _open_beneath(root, name, flags)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise SandboxError(f"The build left a {name.name} of more than {bytes_max} bytes.")
    return data


def _open_beneath(root: Path, name: PurePosixPath, flags: int) -> int:
    """Open ``root/name``, no part of which may be a link. Raises :class:`SandboxError` if it cannot be."""
    reached = os.open(root, _DIRECTORY)
    try:
        for part in name.parts[:-1]:
            following = os.open(part, _DIRECTORY, dir_fd=reached)
            os.close(reached)
            reached = following
        return os.open(name.parts[-1], flags, dir_fd=reached)
    except OSError as error:
        raise SandboxError(f"The build left no {name} ({error.strerror}).") from error
    finally:
        os.close(reached)


def _measure(layer: Path) -> int:
    """How many bytes the files of a layer take up on the disk."""
    total = 0
    for directory in walk_directories(layer):
        with os.scandir(directory) as entries:
            total += sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries)
    return total
