"""The system calls that Python has no function for, each raising :class:`OSError` on failure.

Those marked *thread* change only the calling thread; see :mod:`outgate.runtime.staging` for how that is used.
Numbers are those that all architectures share since Linux 5.0, or are given per architecture.
"""

import ctypes
import os
import platform
import struct
from enum import IntFlag
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_MOUNT_SETATTR: Final = 442
_ARCH_NUMBERS: Final = {
    # setfsuid, setfsgid, capget, capset
    "x86_64": (122, 123, 125, 126),
    "aarch64": (151, 152, 90, 91),
}

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOUNT_ATTR_RDONLY: Final = 0x1
_MOUNT_ATTR_IDMAP: Final = 0x100000
_CAPABILITY_VERSION_3: Final = 0x20080522

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000


class MountFlag(IntFlag):
    """Flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    REC = 0x4000
    PRIVATE = 1 << 18


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _raise_errno(subject: object) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(subject))


def _syscall(subject: object, number: int, *arguments: object) -> int:
    result = int(_LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        _raise_errno(subject)
    return result


def mount(source: str, target: Path, kind: str | None, flags: MountFlag, options: str = "") -> None:
    """Put ``source`` on ``target``; with ``kind`` None, change what is there already."""
    outcome = _LIBC.mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(int(flags)),
        os.fsencode(options) or None,
    )
    if outcome < 0:
        _raise_errno(f"mount {kind or source} on {target}")


def unshare_mounts() -> None:
    """*thread*: give the calling thread a mount namespace of its own, from which nothing propagates."""
    if _LIBC.unshare(CLONE_NEWNS) < 0:
        _raise_errno("unshare mount namespace")
    mount("none", Path("/"), None, MountFlag.REC | MountFlag.PRIVATE)


def enter_netns(descriptor: int) -> None:
    """*thread*: move the calling thread into a network namespace: an open one, or that of a pidfd's process."""
    if _LIBC.setns(descriptor, CLONE_NEWNET) < 0:
        _raise_errno("setns network namespace")


def mount_idmapped(source: Path, target: Path, userns_fd: int, *, readonly: bool) -> None:
    """Mount the directory ``source`` (without what is mounted below it) on ``target``, ids mapped by ``userns_fd``."""
    tree = _syscall(
        source,
        _OPEN_TREE,
        ctypes.c_long(_AT_FDCWD),
        os.fsencode(source),
        ctypes.c_long(_OPEN_TREE_CLONE | os.O_CLOEXEC),
    )
    try:
        attributes = _MountAttr(_MOUNT_ATTR_IDMAP | (_MOUNT_ATTR_RDONLY if readonly else 0), 0, 0, userns_fd)
        _syscall(
            f"id-mapped mount of {source}",
            _MOUNT_SETATTR,
            ctypes.c_long(tree),
            b"",
            ctypes.c_long(_AT_EMPTY_PATH),
            ctypes.byref(attributes),
            ctypes.c_long(ctypes.sizeof(attributes)),
        )
        _syscall(
            target,
            _MOVE_MOUNT,
            ctypes.c_long(tree),
            b"",
            ctypes.c_long(_AT_FDCWD),
            os.fsencode(target),
            ctypes.c_long(_MOVE_MOUNT_F_EMPTY_PATH),
        )
    finally:
        os.close(tree)


def sync_filesystem(path: Path) -> None:
    """Put everything on disk that was written to the file system of ``path``. Blocks for as long as that takes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) < 0:
            _raise_errno(path)
    finally:
        os.close(descriptor)


def become_file_owner(host_id: int) -> None:
    """*thread*: create files as user and group ``host_id`` from now on, with all capabilities kept.

    The kernel takes the file-related capabilities out of the effective set when the file system user
    stops being 0 (capabilities(7)); they are still permitted, so they are raised again.
    """
    setfsuid, setfsgid, capget, capset = _ARCH_NUMBERS[platform.machine()]
    _syscall("setfsgid", setfsgid, ctypes.c_long(host_id))
    _syscall("setfsuid", setfsuid, ctypes.c_long(host_id))
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _syscall("capget", capget, header, sets)
    effective_low, permitted_low, inherit_low, effective_high, permitted_high, inherit_high = struct.unpack(
        "=6I", sets.raw
    )
    del effective_low, effective_high
    raised = (permitted_low, permitted_low, inherit_low, permitted_high, permitted_high, inherit_high)
    _syscall("capset", capset, header, struct.pack("=6I", *raised))
