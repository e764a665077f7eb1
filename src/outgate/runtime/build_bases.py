"""The images that a Dockerfile may name, as buildah finds them: a read-only store of containers/storage. Pure.

A build asks no registry. Its ``FROM`` lines find the images that the operator imported or gave an alias, in an
*additional image store* whose layers are this host's layers themselves, mounted and not copied. Its notes are made
here: what a layer's id is, which comes on which, and under which names an image is looked for.

The host's own directories of programs, which the stock image presents as they are, become the lowest layer.
"""

import base64
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from outgate.runtime.image_manifest import MACHINES

_EPOCH: Final = "1970-01-01T00:00:00Z"
_SIZE_UNKNOWN: Final = 1
"""Layers are never read as archives, so their size does not matter; 0 would count as missing."""
_REFERENCE: Final = re.compile(
    r"(?:(?P<domain>[A-Za-z0-9.-]+(?::[0-9]+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?\Z",
    re.ASCII,
)
"""A name with a tag (the distribution project's reference grammar). Digests name registries' bytes, which we lack."""


@dataclass(frozen=True, slots=True)
class BuildBase:
    """One image that may be built upon. ``layers``: lowest first, above the host's own ``host_directories``."""

    digest: str
    names: tuple[str, ...]
    layers: tuple[Path, ...]
    host_directories: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreLayer:
    """One layer of the store. ``source`` is where its files are; None: the host's own ``host_directories``."""

    id: str
    parent: str | None
    diff_id: str
    source: Path | None
    host_directories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BaseStore:
    """The store: notes by file name, symbolic links, and whose files belong where."""

    files: Mapping[str, bytes]
    links: Mapping[str, str]
    layers: tuple[StoreLayer, ...]

    @staticmethod
    def mount_point(layer: StoreLayer) -> str:
        """Where the files of ``layer`` are to appear in the store."""
        return f"overlay/{layer.id}/diff"


def chain_layers(base: BuildBase) -> tuple[StoreLayer, ...]:
    """The layers of ``base``, lowest first, with the ids that containers/storage computes of such a chain."""
    chain: list[StoreLayer] = []
    parts: list[tuple[str, Path | None]] = [(f"layer {layer.name}", layer) for layer in base.layers]
    if base.host_directories:
        parts.insert(0, (f"host directories {' '.join(base.host_directories)}", None))
    for name, source in parts:
        diff_id = hashlib.sha256(name.encode()).hexdigest()
        parent = chain[-1].id if chain else None
        # storage.go of containers/image: a layer is found again, and so not copied, by this id alone.
        layer_id = diff_id if parent is None else hashlib.sha256(f"{parent}+{diff_id}".encode()).hexdigest()
        directories = base.host_directories if source is None else ()
        chain.append(StoreLayer(layer_id, parent, diff_id, source, directories))
    return tuple(chain)


def render_store(bases: Iterable[BuildBase]) -> BaseStore:
    """The store of ``bases``."""
    layers: dict[str, StoreLayer] = {}
    images: list[dict[str, object]] = []
    files: dict[str, bytes] = {}
    for base in bases:
        chain = chain_layers(base)
        layers.update((layer.id, layer) for layer in chain)
        image, data = _render_image(base, chain)
        images.append(image)
        files.update(data)
    links: dict[str, str] = {}
    short = {layer_id: f"l/{number:x}" for number, layer_id in enumerate(layers)}
    for layer in layers.values():
        own = short[layer.id]
        links[f"overlay/{own}"] = f"../{layer.id}/diff"
        files[f"overlay/{layer.id}/link"] = own.removeprefix("l/").encode()
        below = _ancestors(layer, layers)
        if below:
            files[f"overlay/{layer.id}/lower"] = ":".join(short[parent] for parent in below).encode()
    files["overlay-layers/layers.json"] = json.dumps([_describe_layer(layer) for layer in layers.values()]).encode()
    files["overlay-layers/layers.lock"] = b""
    files["overlay-images/images.json"] = json.dumps(images).encode()
    files["overlay-images/images.lock"] = b""
    return BaseStore(files, links, tuple(layers.values()))


def reference_names(name: str) -> tuple[str, ...]:
    """The full names under which a Dockerfile's ``FROM name`` is looked for; none for what no Dockerfile can say."""
    match = _REFERENCE.match(name)
    if match is None:
        return ()
    domain, path, tag = match["domain"], match["path"], match["tag"] or "latest"
    if domain is not None and not ("." in domain or ":" in domain or domain == "localhost"):
        domain, path = None, f"{domain}/{path}"
        if path != path.lower():
            return ()
    hub_path = path if "/" in path else f"library/{path}"
    if domain is None:
        return (f"localhost/{path}:{tag}", f"docker.io/{hub_path}:{tag}")
    return (f"docker.io/{hub_path}:{tag}",) if domain == "docker.io" else (f"{domain}/{path}:{tag}",)


def data_file_name(key: str) -> str:
    """The file of an image's datum ``key`` (makeBigDataBaseName of containers/storage)."""
    if key.startswith("=") or not re.fullmatch(r"[A-Za-z0-9.]+", key):
        return "=" + base64.b64encode(key.encode()).decode()
    return key


def _ancestors(layer: StoreLayer, layers: Mapping[str, StoreLayer]) -> list[str]:
    """The layers below, nearest first."""
    found: list[str] = []
    parent = layer.parent
    while parent is not None:
        found.append(parent)
        parent = layers[parent].parent
    return found


def _describe_layer(layer: StoreLayer) -> dict[str, object]:
    digest = f"sha256:{layer.diff_id}"
    return {
        "id": layer.id,
        **({} if layer.parent is None else {"parent": layer.parent}),
        "created": _EPOCH,
        "diff-digest": digest,
        "diff-size": _SIZE_UNKNOWN,
        "compressed-diff-digest": digest,
        "compressed-size": _SIZE_UNKNOWN,
    }


def _render_image(base: BuildBase, chain: tuple[StoreLayer, ...]) -> tuple[dict[str, object], dict[str, bytes]]:
    configuration = json.dumps(
        {
            "architecture": MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": [f"{name}={value}" for name, value in base.environment.items()]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in chain]},
            "history": [{"created": _EPOCH, "created_by": "outgate"} for _ in chain],
        }
    ).encode()
    configuration_digest = _digest(configuration)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": configuration_digest,
                "size": len(configuration),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{layer.diff_id}",
                    "size": _SIZE_UNKNOWN,
                }
                for layer in chain
            ],
            # Two images may hold the same; each keeps an id of its own.
            "annotations": {"outgate.image": base.digest},
        }
    ).encode()
    data = {
        configuration_digest: configuration,
        "manifest": manifest,
        f"manifest-{_digest(manifest)}": manifest,
    }
    image_id = hashlib.sha256(base.digest.encode()).hexdigest()
    names = list(dict.fromkeys(full for name in base.names for full in reference_names(name)))
    image: dict[str, object] = {
        "id": image_id,
        "digest": _digest(manifest),
        "names": names,
        "layer": chain[-1].id,
        "metadata": "{}",
        "created": _EPOCH,
        "big-data-names": list(data),
        "big-data-sizes": {key: len(value) for key, value in data.items()},
        "big-data-digests": {key: _digest(value) for key, value in data.items()},
    }
    return image, {f"overlay-images/{image_id}/{data_file_name(key)}": value for key, value in data.items()}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
