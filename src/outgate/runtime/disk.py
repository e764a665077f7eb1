"""What a sandbox has on the host's disk, and the record by which it is known again after any restart."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outgate.runtime.base import SandboxError, SandboxSpec
from outgate.runtime.build_bases import BuildBase
from outgate.runtime.checks import check_id
from outgate.runtime.usermap import IdRange

_BLOCKS_LEFT_MIN = 16
"""A file of several blocks fails before the very last of them is taken."""


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """What was started, from which image.

    ``layers`` are those it runs on, topmost first, which must stay as long as it does; below them are the host's
    own ``host_directories``. ``image_environment`` is the part of the specification's environment that came with
    the image. ``sealing`` is where the upper is becoming a layer at this moment, one path or none. ``bases`` are the
    images that a build may name.
    """

    spec: SandboxSpec
    ids: IdRange
    layers: tuple[Path, ...]
    host_directories: tuple[str, ...] = ()
    image_environment: Mapping[str, str] = field(default_factory=dict)
    sealing: tuple[Path, ...] = ()
    bases: tuple[BuildBase, ...] = ()

    def kept_layers(self) -> tuple[Path, ...]:
        """Every layer that must stay because of this sandbox."""
        return (*self.layers, *self.sealing, *(layer for base in self.bases for layer in base.layers))


@dataclass(frozen=True, slots=True)
class SandboxDisk:
    """The files of one sandbox, all below ``root``."""

    root: Path

    @property
    def record_file(self) -> Path:
        """The :class:`SandboxRecord`; there from the first moment of ``root`` on."""
        return self.root / "sandbox.json"

    @property
    def config(self) -> Path:
        """The OCI bundle's document; ``root`` is the bundle."""
        return self.root / "config.json"

    @property
    def pid_file(self) -> Path:
        """The host's process number of the sandbox's first process."""
        return self.root / "init.pid"

    @property
    def overlay(self) -> Path:
        """Holds :attr:`upper` and ``work`` (the kernel's own)."""
        return self.root / "disk"

    @property
    def upper(self) -> Path:
        """What the sandbox changed, with the ids that the sandbox sees."""
        return self.overlay / "upper"

    @property
    def executions(self) -> Path:
        """One directory per execution."""
        return self.root / "exec"

    def read_record(self) -> SandboxRecord | None:
        """The record, or None when there is no such sandbox."""
        try:
            data = self.record_file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=SandboxRecord, dec_hook=_decode_path)
        except msgspec.DecodeError as error:
            raise SandboxError(f"{self.record_file} cannot be read ({error}).") from error

    def write_record(self, record: SandboxRecord) -> None:
        """Store the record, at once or not at all."""
        write_atomically(self.record_file, msgspec.json.encode(record, enc_hook=_encode_path))

    def is_full(self) -> bool:
        """Whether the sandbox can write next to nothing more: no room, or no inode, is left to users but root."""
        try:
            room = os.statvfs(self.overlay)
        except FileNotFoundError:
            return False  # it is being removed
        # File systems that make inodes as they are needed count none (btrfs).
        return room.f_bavail < _BLOCKS_LEFT_MIN or (room.f_files > 0 and room.f_favail == 0)

    def read_pid(self) -> int | None:
        """What the OCI runtime wrote to ``pid_file``, or None."""
        return read_pid(self.pid_file)


class SandboxDisks:
    """All sandboxes' disks of one Outgate instance, below ``root`` (readable to root alone)."""

    def __init__(self, root: Path) -> None:
        self._live = root / "sandboxes"
        self._trash = root / "trash"

    def ensure(self) -> None:
        """Make the directories and remove what an interrupted removal left."""
        for directory in (self._live, self._trash):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        for leftover in self._trash.iterdir():
            remove_tree(leftover)

    def __iter__(self) -> Iterator[tuple[str, SandboxDisk]]:
        directories = sorted(self._live.iterdir()) if self._live.exists() else []
        return iter([(directory.name, SandboxDisk(directory)) for directory in directories])

    def __getitem__(self, devbox_id: str) -> SandboxDisk:
        return SandboxDisk(self._live / check_id(devbox_id))

    def create(self, devbox_id: str, record: SandboxRecord) -> SandboxDisk:
        """A new disk with its record in it; it appears at once or not at all."""
        made = SandboxDisk(self._trash / secrets.token_hex(8))
        for directory in (made.upper, made.overlay / "work", made.executions):
            directory.mkdir(parents=True)
            # The sandbox's root sees the mode of upper; the way there is closed by the live directory's.
            directory.chmod(0o755)
        made.write_record(record)
        disk = self[devbox_id]
        made.root.rename(disk.root)
        return disk

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the disks' file system, removed at the end, or by :meth:`ensure` after a crash."""
        made = self._trash / secrets.token_hex(8)
        made.mkdir()
        try:
            yield made
        finally:
            remove_tree(made)

    def remove(self, devbox_id: str) -> None:
        """Remove a sandbox's disk; it is gone from the live ones first, so a crash cannot leave half of one."""
        doomed = self._trash / secrets.token_hex(8)
        try:
            self[devbox_id].root.rename(doomed)
        except FileNotFoundError:
            return
        remove_tree(doomed)


def write_atomically(file: Path, data: bytes) -> None:
    """Replace ``file`` by ``data`` in one step. Raises OSError, and the old content stays."""
    temporary = file.with_name(file.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(file)


def read_pid(file: Path) -> int | None:
    """The process number in ``file``, or None if it is missing, empty or being written."""
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isascii() and text.isdigit() else None


def remove_tree(tree: Path) -> None:
    """Remove a tree that a sandbox filled. Raises :class:`SandboxError` when something stays.

    By rm(1), which follows no links and does not tire of depth; shutil.rmtree recurses, and a sandbox
    can nest directories deeper than Python's stack.
    """
    done = subprocess.run(("rm", "-rf", "--one-file-system", "--", tree), capture_output=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"{tree} could not be removed: {done.stderr.decode(errors='replace').strip()[:1000]}")


def _encode_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a record")


def _decode_path(kind: type, value: Any) -> Path:
    if kind is Path:
        return Path(value)
    raise TypeError(f"{kind.__name__} has no place in a record")
