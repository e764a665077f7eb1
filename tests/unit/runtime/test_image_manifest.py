"""What an archive says it holds, believed only as far as its digests go."""

import io
import json
from collections.abc import Mapping

import pytest

from outgate.runtime.image_manifest import read_manifest
from outgate.runtime.layer_tar import LayerError
from support.image_archives import layout_files, saved_files, sha256


class DictionaryArchive:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def has(self, name: str) -> bool:
        return name in self._files

    def open(self, name: str) -> io.BufferedReader:
        if name not in self._files:
            raise LayerError(f"The image lacks the file {name}.")
        return io.BufferedReader(io.BytesIO(self._files[name]))


LAYERS = (b"one", b"two")


def layout(**changes: object) -> dict[str, bytes]:
    return layout_files(LAYERS, "amd64", environment=["A=b=c", "broken", "=x"], name="box:1") | changes  # type: ignore[return-value] # the values are bytes


def test_a_layout() -> None:
    manifest = read_manifest(DictionaryArchive(layout()), "x86_64")
    assert [layer.diff_id for layer in manifest.layers] == [sha256(b"one"), sha256(b"two")]
    assert [f"blobs/{layer.digest}".replace(":", "/") for layer in manifest.layers if layer.digest] == [
        layer.file for layer in manifest.layers
    ]
    assert manifest.environment == {"A": "b=c"}
    assert manifest.names == ("box:1",)


def test_an_archive_by_docker_save() -> None:
    manifest = read_manifest(DictionaryArchive(saved_files(LAYERS, "amd64", ["box:1", "box:2"])), "x86_64")
    assert [(layer.file, layer.digest, layer.diff_id) for layer in manifest.layers] == [
        ("0/layer.tar", None, sha256(b"one")),
        ("1/layer.tar", None, sha256(b"two")),
    ]
    assert manifest.names == ("box:1", "box:2")


def index_of(*descriptors: Mapping[str, object]) -> bytes:
    return json.dumps({"manifests": descriptors}).encode()


def test_the_image_for_this_machine_is_found_in_an_index_of_indexes() -> None:
    files = layout()
    (descriptor,) = json.loads(files["index.json"])["manifests"]
    other = {"digest": sha256(b"other"), "platform": {"os": "linux", "architecture": "arm64"}}
    attestation = {"digest": sha256(b"proof"), "platform": {"os": "unknown", "architecture": "unknown"}}
    own = {**descriptor, "platform": {"os": "linux", "architecture": "amd64"}, "annotations": {}}
    inner = index_of(other, own, attestation)
    files["blobs/" + sha256(inner).replace(":", "/")] = inner
    files["index.json"] = index_of(
        {
            "digest": sha256(inner),
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "annotations": {"org.opencontainers.image.ref.name": "outer"},
        }
    )
    assert read_manifest(DictionaryArchive(files), "x86_64").names == ("outer",)


def changed(files: dict[str, bytes], name: str, old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in files[name]
    return files | {name: files[name].replace(old, new)}


def manifest_file(files: Mapping[str, bytes]) -> str:
    (descriptor,) = json.loads(files["index.json"])["manifests"]
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


REFUSED = {
    "an empty directory": ({}, "neither an OCI layout"),
    "two images": (
        {"index.json": index_of({"digest": sha256(b"a")}, {"digest": sha256(b"b")})},
        "holds 2 images for linux/amd64",
    ),
    "no image for this machine": (layout_files(LAYERS, "arm64"), "image is for linux/arm64"),
    "manifest that was changed": (
        changed(layout(), manifest_file(layout()), b'"schemaVersion": 2', b'"schemaVersion": 3'),
        "holds something else",
    ),
    "digest that climbs out of the archive": (
        {"index.json": index_of({"digest": "sha256:../../../../etc/passwd"})},
        "is not a sha256 digest",
    ),
    "digest of another kind": ({"index.json": index_of({"digest": "md5:00"})}, "is not a sha256 digest"),
    "blob that is not there": ({"index.json": index_of({"digest": sha256(b"a")})}, "lacks the file"),
    "index that is no JSON": ({"index.json": b"{"}, "cannot be understood"),
    "index nested without end": ({"index.json": b"[" * 100_000}, "cannot be understood"),
    "index of the wrong shape": ({"index.json": b'{"manifests": 3}'}, "cannot be understood"),
    "index that is too large": ({"index.json": b" " * ((4 << 20) + 1)}, "is larger than"),
    "no layers": (layout_files((), "amd64"), "has 0 layers"),
    "too many layers": (layout_files([str(n).encode() for n in range(128)], "amd64"), "has 128 layers"),
    "saved configuration that was changed": (
        {
            name: data.replace(b"linux", b"linus") if name.endswith(".json") and name != "manifest.json" else data
            for name, data in saved_files(LAYERS, "amd64", []).items()
        },
        "does not have the digest",
    ),
    "saved image with layers missing": (
        changed(saved_files(LAYERS, "amd64", []), "manifest.json", b', "1/layer.tar"', b""),
        "differ in how many layers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_archives_that_are_refused(case: str) -> None:
    files, complaint = REFUSED[case]
    with pytest.raises(LayerError, match=complaint):
        read_manifest(DictionaryArchive(files), "x86_64")


def test_indexes_too_deep_in_each_other_are_refused() -> None:
    files: dict[str, bytes] = {}
    index = index_of({"digest": sha256(b"a")})
    for _ in range(5):
        files["blobs/" + sha256(index).replace(":", "/")] = index
        index = index_of({"digest": sha256(index), "mediaType": "application/vnd.oci.image.index.v1+json"})
    with pytest.raises(LayerError, match="too deep"):
        read_manifest(DictionaryArchive(files | {"index.json": index}), "x86_64")
