"""Makes image archives, right ones and wrong ones."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(entries: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of exactly these entries, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, data: bytes = b"", **settings: object) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file, unless ``type`` says otherwise."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for key, value in settings.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def layout_files(
    layers: Sequence[bytes],
    architecture: str,
    *,
    environment: Sequence[str] = (),
    name: str | None = None,
    compress: bool = True,
) -> dict[str, bytes]:
    """The files of an OCI layout that holds one image."""
    blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": list(environment)},
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_described(configuration)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **_described(b)} for b in blobs],
        }
    ).encode()
    descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **_described(manifest)}
    if name is not None:
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
    files = {_blob(data): data for data in (*blobs, configuration, manifest)}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    return files


def saved_files(layers: Sequence[bytes], architecture: str, tags: Sequence[str]) -> dict[str, bytes]:
    """The files of an archive by ``docker save`` (before version 25)."""
    configuration = json.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": [sha256(layer) for layer in layers]}}
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    config_name = sha256(configuration).partition(":")[2] + ".json"
    saved = [{"Config": config_name, "RepoTags": list(tags), "Layers": names}]
    return {
        config_name: configuration,
        "manifest.json": json.dumps(saved).encode(),
        **dict(zip(names, layers, strict=True)),
    }


def write_directory(files: Mapping[str, bytes], root: Path) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(files: Mapping[str, bytes], path: Path) -> Path:
    path.write_bytes(tar_of([entry(name, data) for name, data in files.items()]))
    return path


def _described(data: bytes) -> dict[str, object]:
    return {"digest": sha256(data), "size": len(data)}


def _blob(data: bytes) -> str:
    return "blobs/" + sha256(data).replace(":", "/")
