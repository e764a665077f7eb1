"""The root file system of a sandbox: overlays of its image's layers and its own upper, ids mapped.

All of it is mounted in a mount namespace that exists only while the sandbox's first process is made and
that this process's own namespace is copied from (:func:`outgate.runtime.staging.run_staged`). So the
host's mount table never shows it, and the kernel takes it down with the sandbox's last process, whatever
happened to the daemon.

Two kernel facts shape the rest (measured on 6.18; documented in mount_setattr(2) since 5.19):

* The upper is reached through an id-mapped mount too, and the kernel creates the overlay's work directory
  with the ids of the thread that mounts. If these have no mapping, the overlay comes up read-only; so the
  thread becomes the sandbox's root for files first.
* A layer does not include what is mounted below it. A host's directory that an image presents (/usr) is
  therefore an overlay of its own, whose upper is that directory of the sandbox's one upper. Together they
  are one tree of changes, as any snapshot wants it.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from outgate.runtime import syscalls
from outgate.runtime.base import SandboxError
from outgate.runtime.syscalls import MountFlag

_FORMAT: Final = "redirect_dir=nofollow,metacopy=off,index=off"
"""What the kernel notes in an upper, whatever this host's defaults: nothing that points to other layers, since an
upper becomes a layer itself and its files must mean the same above others (kernel documentation, overlayfs)."""
_ETC_BYTES_MAX: Final = 1 << 20
LAYERS_MAX: Final = 127
"""Layers of one image: as many as other tools make. The kernel takes 500 per overlay, and one page of options."""


@dataclass(frozen=True, slots=True)
class OverlayMount:
    """One overlay on ``target`` (relative to the root, ``.`` for the root itself). Lower layers: topmost first."""

    target: PurePosixPath
    lowers: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Staging:
    """Empty directories on the host on which each sandbox's own mount namespace has its mounts."""

    root: Path

    @property
    def rootfs(self) -> Path:
        """Where the root file system appears."""
        return self.root / "rootfs"

    @property
    def sys(self) -> Path:
        """Where the sysfs of the sandbox's network namespace appears."""
        return self.root / "sys"

    @property
    def etc(self) -> Path:
        """Where the sandbox's own resolv.conf, hosts and hostname are made."""
        return self.root / "etc"

    @property
    def layers(self) -> Path:
        """Where the id-mapped layers appear while the overlays are made."""
        return self.root / "layers"

    def ensure(self) -> None:
        """Make the directories. Raises :class:`SandboxError` if other users may not pass through to them."""
        for directory in (self.rootfs, self.sys, self.etc, self.layers):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        for above in (self.root, *self.root.parents):
            if not above.stat().st_mode & 0o001:
                raise SandboxError(
                    f"{above} is closed to other users, and sandboxes run as other users; "
                    "use a run directory that all may pass through (chmod o+x)."
                )

    def remove(self) -> None:
        """Remove the directories, which are empty: what is mounted on them is so in other mount namespaces only."""
        for directory in (self.rootfs, self.sys, self.etc, self.layers, self.root):
            with suppress(FileNotFoundError):
                directory.rmdir()


def plan_overlays(layers: tuple[Path, ...], host_directories: tuple[PurePosixPath, ...]) -> tuple[OverlayMount, ...]:
    """The overlays of an image: ``layers`` topmost first, below them the host's own directories.

    In the overlay of a host directory each layer takes part with its directory of that name, if it has one.
    """
    below = tuple(
        OverlayMount(
            directory.relative_to("/"),
            (
                *(layer / directory.relative_to("/") for layer in layers if _is_directory(layer, directory)),
                Path(directory),
            ),
        )
        for directory in host_directories
    )
    return (OverlayMount(PurePosixPath(), layers), *below)


def _is_directory(layer: Path, directory: PurePosixPath) -> bool:
    return (layer / directory.relative_to("/")).is_dir() and not (layer / directory.relative_to("/")).is_symlink()


def mount_rootfs(
    staging: Staging, overlays: tuple[OverlayMount, ...], disk: Path, *, userns_fd: int, host_root: int
) -> None:
    """Mount ``overlays`` on ``staging.rootfs``; changes go to ``disk``/upper. Only inside :func:`run_staged`."""
    syscalls.mount("layers", staging.layers, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=755")
    # The thread's own working directory (unshared with its mounts) keeps the options short: they must fit one page.
    os.chdir(staging.layers)
    slots: dict[Path, str] = {}
    for layer in dict.fromkeys(lower for overlay in overlays for lower in overlay.lowers):
        slots[layer] = _mount_layer(str(len(slots)), layer, userns_fd, readonly=True)
    _mount_layer("disk", disk, userns_fd, readonly=False)
    syscalls.become_file_owner(host_root)
    try:
        for overlay in overlays:
            upper = _ensure_directory(Path("disk/upper"), overlay.target)
            work = _ensure_directory(Path("disk/work"), PurePosixPath(str(overlay.target).replace("/", "-")))
            lowers = ":".join(slots[layer] for layer in overlay.lowers)
            target = _ensure_directory(staging.rootfs, overlay.target)
            options = f"lowerdir={lowers},upperdir={upper},workdir={work},{_FORMAT}"
            syscalls.mount("overlay", target, "overlay", MountFlag.NODEV, options)
    finally:
        syscalls.become_file_owner(0)


def _mount_layer(slot: str, layer: Path, userns_fd: int, *, readonly: bool) -> str:
    Path(slot).mkdir()
    syscalls.mount_idmapped(layer, Path(slot), userns_fd, readonly=readonly)
    return slot


def _ensure_directory(base: Path, below: PurePosixPath) -> Path:
    """``base/below`` as directories, none of them a link: what is there may come from inside a sandbox."""
    reached = base
    for part in below.parts:
        reached = reached / part
        with suppress(FileExistsError):
            reached.mkdir()
            reached.chmod(0o755)
        if not stat.S_ISDIR(reached.lstat().st_mode):
            raise SandboxError(f"/{below} is not a directory in the sandbox's disk or image.")
    return reached


def mount_sys(staging: Staging) -> None:
    """Mount a read-only sysfs that shows the thread's network namespace. Only inside :func:`run_staged`."""
    quiet = MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    syscalls.mount("sysfs", staging.sys, "sysfs", quiet)


def mount_etc(staging: Staging) -> None:
    """Mount a small file system for the sandbox's own files in /etc. Only inside :func:`run_staged`.

    It is made anew at each boot, tells the sandbox no path of the host's (/proc/self/mountinfo would, of bound files),
    and is full before anybody's disk is: the sandbox's root may write to these files.
    """
    quiet = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    syscalls.mount("etc", staging.etc, "tmpfs", quiet, f"mode=755,size={_ETC_BYTES_MAX}")
