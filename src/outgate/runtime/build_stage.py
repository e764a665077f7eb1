"""What a build's sandbox has besides its root file system: a place for its storage, and the images it may build upon.

Both appear below :data:`BUILD_ROOT`. Its disk is the sandbox's own, so whatever a build stores is held to the
sandbox's limits and goes with it. The images are this host's layers, mounted read-only with the sandbox's ids;
nothing is copied, however large they are.

The host's own directories of programs (/usr) need a trick: as a layer of buildah's they must lie *inside* a tree, and
an overlay does not show what is mounted inside its layers. So an overlay is made here whose directory ``image`` holds
one directory for each of them, redirected (kernel documentation, overlayfs, "redirect_dir") to the one of that name in
the host's root file system; of this overlay the sandbox gets ``image`` alone, read-only.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from outgate.runtime import syscalls
from outgate.runtime.build_bases import BaseStore, BuildBase, StoreLayer, render_store
from outgate.runtime.bundle import CAPABILITIES
from outgate.runtime.rootfs import Staging
from outgate.runtime.syscalls import MountFlag

BUILD_ROOT: Final = PurePosixPath("/build")
STORAGE: Final = "storage"
"""Where buildah keeps what it makes, below :data:`BUILD_ROOT`."""
_BASES: Final = "bases"
_CONFIGURATION: Final = {
    "storage.conf": (
        "[storage]\n"
        'driver = "overlay"\n'
        f'graphroot = "{BUILD_ROOT}/{STORAGE}"\n'
        f'runroot = "{BUILD_ROOT}/run"\n'
        "[storage.options]\n"
        f'additionalimagestores = ["{BUILD_ROOT}/{_BASES}"]\n'
    ),
    # Nothing is pulled, so there is nothing whose signature could be looked at.
    "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "registries.conf": "unqualified-search-registries = []\n",
    # As in a devbox; without a list, buildah would try to grant what the builder itself does not have.
    "containers.conf": f"[containers]\ndefault_capabilities = {json.dumps(CAPABILITIES)}\n",
}
_BASES_BYTES_MAX: Final = 64 << 20
"""Of notes about images: some 3 KB each."""


def configuration_path(name: str) -> PurePosixPath:
    """Where a configuration file of buildah's is in the sandbox."""
    return BUILD_ROOT / _BASES / name


def build_directory(disk: Path) -> Path:
    """Where :data:`BUILD_ROOT` is on the sandbox's ``disk``."""
    return disk / "build"


def mount_build(staging: Staging, bases: Sequence[BuildBase], disk: Path, *, userns_fd: int, host_root: int) -> None:
    """Mount storage and bases below ``staging.rootfs``. Only inside :func:`run_staged`, after the root file system."""
    own = build_directory(disk)
    own.mkdir(exist_ok=True)
    own.chmod(0o700)
    root = staging.rootfs / BUILD_ROOT.relative_to("/")
    _make_as(host_root, root)
    syscalls.mount_idmapped(own, root, userns_fd, readonly=False)
    store_root = root / _BASES
    _make_as(host_root, store_root)
    # Quickly full if a note went wrong, instead of the host's memory.
    options = f"mode=755,size={_BASES_BYTES_MAX}"
    syscalls.mount("bases", store_root, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, options)
    store = render_store(bases)
    _write_notes(store_root, store)
    for layer in store.layers:
        _mount_store_layer(staging, store_root / BaseStore.mount_point(layer), layer, userns_fd, host_root)
    flags = MountFlag.REMOUNT | MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV
    syscalls.mount("bases", store_root, None, flags, options)


def _make_as(host_root: int, directory: Path) -> None:
    with _file_owner(host_root):
        directory.mkdir(exist_ok=True)


@contextmanager
def _file_owner(host_root: int) -> Iterator[None]:
    syscalls.become_file_owner(host_root)
    try:
        yield
    finally:
        syscalls.become_file_owner(0)


def _write_notes(root: Path, store: BaseStore) -> None:
    for layer in store.layers:
        _ensure_directory(root, PurePosixPath(BaseStore.mount_point(layer)))
    notes = {**store.files, **{name: text.encode() for name, text in _CONFIGURATION.items()}}
    for name, data in notes.items():
        file = PurePosixPath(name)
        _ensure_directory(root, file.parent)
        (root / file).write_bytes(data)
        (root / file).chmod(0o644)
    for name, target in store.links.items():
        _ensure_directory(root, PurePosixPath(name).parent)
        (root / name).symlink_to(target)


def _ensure_directory(root: Path, below: PurePosixPath) -> None:
    for part in (*reversed(below.parents), below):
        if not (root / part).exists():
            (root / part).mkdir()
            # mkdir's own mode is subject to the daemon's mask, under which the sandbox's root could not read.
            (root / part).chmod(0o755)


def _mount_store_layer(staging: Staging, target: Path, layer: StoreLayer, userns_fd: int, host_root: int) -> None:
    if layer.source is not None:
        syscalls.mount_idmapped(layer.source, target, userns_fd, readonly=True)
        return
    image = _mount_host_directories(staging.layers / f"host-{layer.id}", layer.host_directories, userns_fd, host_root)
    syscalls.mount(os.fspath(image), target, None, MountFlag.BIND)


def _mount_host_directories(place: Path, directories: Sequence[str], userns_fd: int, host_root: int) -> Path:
    """A directory that holds ``directories`` of the host's root file system and nothing else, read-only."""
    frame, host, merged = place / "frame", place / "host", place / "merged"
    for directory in (place, frame, host, merged, frame / "image"):
        directory.mkdir()
        directory.chmod(0o755)
    for name in directories:
        inside = frame / "image" / PurePosixPath(name).relative_to("/")
        inside.mkdir()
        inside.chmod(0o755)
        os.setxattr(inside, "trusted.overlay.redirect", name.encode())
    for directory in (frame, *frame.rglob("*")):
        os.chown(directory, host_root, host_root)
    syscalls.mount_idmapped(Path("/"), host, userns_fd, readonly=True)
    options = f"lowerdir={frame}:{host},redirect_dir=follow"
    syscalls.mount("overlay", merged, "overlay", MountFlag.NODEV | MountFlag.RDONLY, options)
    return merged / "image"
