"""Several layers as one that means the same where they were. A program of its own.

``python -m outgate.runtime.merging TARGET --layers TOPMOST … LOWEST --below TOPMOST … LOWEST --host /usr …`` fills
TARGET, which must not exist, with ``layers`` as they look above the layers ``below`` and, under these, the host's own
directories. It may have millions of names to go through, which is why the daemon, whose other work is timed, does not
do it itself.

Files are not copied: a layer never changes, so a file in two of them can be one file with two names. The marks of
overlayfs (kernel documentation, overlayfs, "whiteouts and opaque directories") are carried over where they have
something to hide: a directory above a file or whiteout becomes opaque; and a whiteout in a directory that only one
layer has would be listed as the device that it is, for the kernel looks for whiteouts in merged directories alone
(measured on 6.18).
"""

import argparse
import errno
import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OPAQUE: Final = "trusted.overlay.opaque"
_REDIRECT: Final = "trusted.overlay.redirect"
_OVERLAY: Final = "trusted.overlay."


class MergeError(Exception):
    """These layers cannot be merged."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What is merged, all topmost first: ``layers``, the layers ``below`` them, then the host's own directories."""

    layers: tuple[Path, ...]
    below: tuple[Path, ...] = ()
    host_directories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Merged:
    """A directory to be made at ``target``, for ``name`` in the sandbox (``/usr``; empty for the root).

    ``sources`` are the directories it is made of, ``below`` those that show through it; ``is_opaque`` when none may.
    """

    target: Path
    name: str
    sources: tuple[Path, ...]
    below: tuple[Path, ...]
    is_opaque: bool = False


def merge_layers(target: Path, stack: Stack) -> None:
    """Fill the new directory ``target``, which is on the layers' file system.

    Raises :class:`MergeError` and OSError; what was made until then stays.
    """
    pending = [_Merged(target, "", stack.layers, stack.below)]
    made: list[_Merged] = []
    copies: dict[tuple[int, int], Path] = {}
    while pending:
        directory = pending.pop()
        directory.target.mkdir(mode=0o700)
        made.append(directory)
        for name, sources in _collect_names(directory.sources).items():
            status = sources[0].lstat()
            if stat.S_ISDIR(status.st_mode):
                pending.append(_merge_below(directory, name, sources, stack.host_directories))
            elif directory.below or not _is_whiteout(status):
                _link(sources[0], directory.target / name, copies)
    # Deepest first and at the end: to fill a directory changes its times.
    for directory in reversed(made):
        _dress(directory)


def _collect_names(directories: Sequence[Path]) -> dict[str, list[Path]]:
    """Every name in ``directories``, with the paths that have it, topmost first."""
    names: dict[str, list[Path]] = {}
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                names.setdefault(entry.name, []).append(directory / entry.name)
    return names


def _merge_below(parent: _Merged, name: str, candidates: Sequence[Path], host_directories: tuple[str, ...]) -> _Merged:
    full_name, target = f"{parent.name}/{name}", parent.target / name
    sources, is_opaque = _show_through(candidates)
    if is_opaque:
        return _Merged(target, full_name, sources, (), is_opaque=True)
    host = (Path(full_name),) if full_name in host_directories else ()
    below, _ = _show_through((*(path / name for path in parent.below), *host))
    return _Merged(target, full_name, sources, below)


def _show_through(paths: Sequence[Path]) -> tuple[tuple[Path, ...], bool]:
    """Those of ``paths`` (topmost first) that show in a merged directory; whether one of them ends what does."""
    shown: list[Path] = []
    for path in paths:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return tuple(shown), True
        shown.append(path)
        if _is_opaque(path):
            return tuple(shown), True
    return tuple(shown), False


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _link(source: Path, target: Path, copies: dict[tuple[int, int], Path]) -> None:
    """Another name for a file; for a new copy of it when it has as many as the file system allows."""
    status = source.lstat()
    key = (status.st_dev, status.st_ino)
    try:
        os.link(copies.get(key, source), target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        subprocess.run(("cp", "--archive", "--reflink=auto", "--", source, target), check=True)
        copies[key] = target


def _dress(directory: _Merged) -> None:
    """Owner, mode, attributes and times of the topmost source."""
    source, target = directory.sources[0], directory.target
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid)
    for key in os.listxattr(source, follow_symlinks=False):
        if key == _REDIRECT:
            raise MergeError(f"{source} shows another directory's content, which no sandbox of ours leaves behind.")
        if not key.startswith(_OVERLAY):
            os.setxattr(target, key, os.getxattr(source, key, follow_symlinks=False), follow_symlinks=False)
    if directory.is_opaque:
        os.setxattr(target, _OPAQUE, b"y", follow_symlinks=False)
    target.chmod(stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=Path)
    parser.add_argument("--layers", type=Path, nargs="+", required=True)
    parser.add_argument("--below", type=Path, nargs="*", default=())
    parser.add_argument("--host", nargs="*", default=())
    given = parser.parse_args()
    merge_layers(given.target, Stack(tuple(given.layers), tuple(given.below), tuple(given.host)))


if __name__ == "__main__":
    main()
