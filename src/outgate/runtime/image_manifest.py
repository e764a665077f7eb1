"""Reading what an archive says it holds: index, manifest and configuration, each checked against its digest."""

import hashlib
import platform
import re
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from outgate.runtime.image_archive import ImageArchive
from outgate.runtime.layer_tar import LayerError
from outgate.runtime.rootfs import LAYERS_MAX

_DOCUMENT_BYTES_MAX: Final = 4 << 20
"""Registries take manifests of 4 MiB (OCI distribution specification)."""
_INDEX_DEPTH_MAX: Final = 3
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)
_INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_NAME_ANNOTATIONS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""uname(2)'s names and those that images use."""

Document = TypeVar("Document")


class _Platform(msgspec.Struct, frozen=True):
    os: str = "linux"
    architecture: str = ""


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    media_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[_Descriptor, ...]


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: tuple[_Descriptor, ...]


class _Rootfs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...]


class _Settings(msgspec.Struct, frozen=True):
    environment: tuple[str, ...] | None = msgspec.field(default=None, name="Env")


class _Configuration(msgspec.Struct, frozen=True):
    rootfs: _Rootfs
    architecture: str = ""
    os: str = "linux"
    config: _Settings | None = None


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One layer of an archive. ``digest`` is of the file as it lies there, None where the archive does not say."""

    file: str
    digest: str | None
    diff_id: str
    """Digest of the layer's tar archive, uncompressed."""


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """An archive's one image for this machine. ``layers``: lowest first."""

    digest: str
    layers: tuple[LayerSource, ...]
    environment: dict[str, str]
    names: tuple[str, ...]


def read_manifest(archive: ImageArchive, machine: str | None = None) -> ImageManifest:
    """The image that ``archive`` holds for ``machine`` (this one, unless given). Raises :class:`LayerError`."""
    architecture = MACHINES.get(machine or platform.machine(), "")
    if archive.has("index.json"):
        return _read_layout(archive, architecture)
    if archive.has("manifest.json"):
        return _read_saved(archive, architecture)
    raise LayerError("This is neither an OCI layout (index.json) nor an archive by docker save (manifest.json).")


def _read_layout(archive: ImageArchive, architecture: str) -> ImageManifest:
    index = _decode(_read_document(archive, "index.json"), _Index, "index.json")
    found = {
        descriptor.digest: descriptor for descriptor in _find_manifests(archive, index, architecture, _INDEX_DEPTH_MAX)
    }
    if len(found) != 1:
        raise LayerError(
            f"The archive holds {len(found)} images for linux/{architecture}; exactly one can be imported at a time."
        )
    ((digest, descriptor),) = found.items()
    manifest = _decode(_read_blob(archive, digest), _Manifest, "the manifest")
    configuration = _decode(_read_blob(archive, manifest.config.digest), _Configuration, "the configuration")
    _check_configuration(configuration, len(manifest.layers), architecture)
    return ImageManifest(
        digest=digest,
        layers=tuple(
            LayerSource(_blob_file(layer.digest), layer.digest, diff_id)
            for layer, diff_id in zip(manifest.layers, configuration.rootfs.diff_ids, strict=True)
        ),
        environment=_environment(configuration),
        names=tuple(descriptor.annotations[key] for key in _NAME_ANNOTATIONS if key in descriptor.annotations)[:1],
    )


def _find_manifests(
    archive: ImageArchive, index: _Index, architecture: str, depth_left: int
) -> tuple[_Descriptor, ...]:
    """The manifests for this machine, those in indexes inside the index too. Attestations name no machine of ours."""
    found: list[_Descriptor] = []
    for descriptor in index.manifests:
        if descriptor.media_type in _INDEX_TYPES:
            if depth_left == 0:
                raise LayerError("The archive's indexes lie too deep in each other.")
            inner = _decode(_read_blob(archive, descriptor.digest), _Index, "an index")
            found.extend(
                msgspec.structs.replace(below, annotations={**descriptor.annotations, **below.annotations})
                for below in _find_manifests(archive, inner, architecture, depth_left - 1)
            )
        elif descriptor.platform is None or (descriptor.platform.os, descriptor.platform.architecture) == (
            "linux",
            architecture,
        ):
            found.append(descriptor)
    return tuple(found)


def _read_saved(archive: ImageArchive, architecture: str) -> ImageManifest:
    saved = _decode(_read_document(archive, "manifest.json"), tuple[_Saved, ...], "manifest.json")
    if len(saved) != 1:
        raise LayerError(f"The archive holds {len(saved)} images; exactly one can be imported at a time.")
    (image,) = saved
    data = _read_document(archive, image.config)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    # docker save names the configuration by its digest, in one of two places.
    claimed = image.config.removesuffix(".json").rpartition("/")[2]
    if _DIGEST.match(f"sha256:{claimed}") and digest != f"sha256:{claimed}":
        raise LayerError(f"{image.config} does not have the digest that its name says.")
    configuration = _decode(data, _Configuration, image.config)
    _check_configuration(configuration, len(image.layers), architecture)
    return ImageManifest(
        digest=digest,
        layers=tuple(
            LayerSource(file, None, diff_id)
            for file, diff_id in zip(image.layers, configuration.rootfs.diff_ids, strict=True)
        ),
        environment=_environment(configuration),
        names=image.repo_tags or (),
    )


def _check_configuration(configuration: _Configuration, layers: int, architecture: str) -> None:
    if (configuration.os, configuration.architecture or architecture) != ("linux", architecture):
        raise LayerError(
            f"The image is for {configuration.os}/{configuration.architecture}; this machine is linux/{architecture}."
        )
    if not 0 < layers <= LAYERS_MAX:
        raise LayerError(f"The image has {layers} layers; 1 to {LAYERS_MAX} can be used.")
    if len(configuration.rootfs.diff_ids) != layers:
        raise LayerError("The image's configuration and its manifest differ in how many layers there are.")
    for diff_id in configuration.rootfs.diff_ids:
        _check_digest(diff_id)


def read_environment(data: bytes) -> dict[str, str]:
    """The environment that an image's configuration gives to its programs. Raises :class:`LayerError`."""
    return _environment(_decode(data, _Configuration, "the configuration"))


def _environment(configuration: _Configuration) -> dict[str, str]:
    settings = configuration.config.environment if configuration.config else None
    pairs = (setting.partition("=") for setting in settings or ())
    return {name: value for name, equals, value in pairs if name and equals and "\0" not in name + value}


def _check_digest(digest: str) -> str:
    if not _DIGEST.match(digest):
        raise LayerError(f"{digest[:100]!r} is not a sha256 digest.")
    return digest


def _blob_file(digest: str) -> str:
    return "blobs/" + _check_digest(digest).replace(":", "/")


def _read_blob(archive: ImageArchive, digest: str) -> bytes:
    data = _read_document(archive, _blob_file(digest))
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise LayerError(f"The archive's file for {digest} holds something else.")
    return data


def _read_document(archive: ImageArchive, file: str) -> bytes:
    with archive.open(file) as source:
        data = source.read(_DOCUMENT_BYTES_MAX + 1)
    if len(data) > _DOCUMENT_BYTES_MAX:
        raise LayerError(f"{file} of the archive is larger than {_DOCUMENT_BYTES_MAX} bytes.")
    return data


def _decode(data: bytes, kind: type[Document], what: str) -> Document:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LayerError(f"{what} cannot be understood: {error}.") from error
