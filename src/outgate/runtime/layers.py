"""The store of immutable layers, made once and shared by all images.

Imported layers are directories named by what they hold (``sha256:…``), sealed ones, which came out of a sandbox,
by chance (``sealed:…``): to hash a disk would take longer than to keep it.

On disk a layer carries the ids that a sandbox sees and the kernel's overlay marks (whiteouts as 0/0
character devices, ``trusted.overlay.opaque``). The way to it is closed to all users but root, since it may
hold set-user-id files of anybody's making.
"""

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from outgate.runtime.disk import remove_tree

_HASH_BLOCK_BYTES: Final = 1 << 20
_SEALED: Final = "sealed:"


class LayerStore:
    """All layers of one Outgate instance, below ``root``. Its locks cover the images that name them as well."""

    def __init__(self, root: Path) -> None:
        self._layers = root / "layers"
        self._incoming = root / "incoming"
        self._lock = root / "images.lock"
        self._writer_lock = root / "images-writer.lock"

    def ensure(self) -> None:
        """Make the directories. Raises OSError."""
        for directory in (self._layers, self._incoming):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that adds with :meth:`add` or removes; clears what it, or an interrupted one, left.

        Blocks, maybe for minutes.
        """
        with self._writer_lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._clear_incoming()
            try:
                yield
            finally:
                self._clear_incoming()

    @contextmanager
    def writing_if_idle(self) -> Iterator[bool]:
        """The same without waiting: false, and nothing may be done, while another process is the one."""
        with self._writer_lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            self._clear_incoming()
            try:
                yield True
            finally:
                self._clear_incoming()

    def _clear_incoming(self) -> None:
        for leftover in self._incoming.iterdir():
            remove_tree(leftover)

    @contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Keep images and layers as they are (shared), or be alone to change which there are. Blocks for moments."""
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def path(self, digest: str) -> Path:
        """Where the layer of that name (``sha256:…``, ``sealed:…``) is or would be."""
        return self._layers / digest.replace(":", "-")

    def name_of(self, layer: Path) -> str:
        """The name of the layer that :meth:`path` gave."""
        return layer.name.replace("-", ":", 1)

    def has(self, digest: str) -> bool:
        """Whether the layer is there."""
        return self.path(digest).is_dir()

    def add(self, fill: Callable[[Path], str]) -> str:
        """Store what ``fill`` puts into the empty directory it is given, under the digest that it returns.

        The layer is there at once or not at all; what ``fill`` raises comes out. Returns the digest. Only
        inside :meth:`writing`.
        """
        made = self._incoming / secrets.token_hex(8)
        made.mkdir()
        try:
            digest = fill(made)
            if not self.has(digest):
                made.rename(self.path(digest))
        finally:
            if made.exists():
                remove_tree(made)
        return digest

    def remove_unused(self, used: Collection[Path]) -> None:
        """Take every layer away that is not among ``used``. Call with the lock held exclusively.

        The end of :meth:`writing` deletes them: that may take a while, and nobody has to wait for it.
        """
        for layer in self._layers.iterdir():
            if layer not in used:
                layer.rename(self._incoming / secrets.token_hex(8))


def make_sealed_name() -> str:
    """A name for a layer that comes out of a sandbox."""
    return _SEALED + secrets.token_hex(16)


def is_sealed(name: str) -> bool:
    """Whether the layer of that name came out of a sandbox."""
    return name.startswith(_SEALED)


def digest_tree(tree: Path) -> str:
    """``sha256:…`` over names, kinds, modes, owners, link targets and contents of everything below ``tree``."""
    total = hashlib.sha256()
    for directory, subdirectories, files in os.walk(tree):
        subdirectories.sort()
        for name in sorted([*subdirectories, *files]):
            path = Path(directory) / name
            status = path.lstat()
            key = (str(path.relative_to(tree)), status.st_mode, status.st_uid, status.st_gid)
            total.update(repr(key).encode())
            if stat.S_ISLNK(status.st_mode):
                total.update(os.fsencode(path.readlink()))
            elif stat.S_ISREG(status.st_mode):
                with path.open("rb") as file:
                    while block := file.read(_HASH_BLOCK_BYTES):
                        total.update(block)
    return f"sha256:{total.hexdigest()}"
