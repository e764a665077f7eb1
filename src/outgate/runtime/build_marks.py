"""Opaque directories, in both spellings of overlayfs.

Sandboxes' overlays are mounted by root and read ``trusted.overlay.opaque``; those that buildah mounts in its user
namespace read ``user.overlay.opaque`` (kernel documentation, overlayfs, "userxattr"). A layer that both use must say it
in both. Whiteouts are the same in either.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_TRUSTED: Final = "trusted.overlay.opaque"
_USER: Final = "user.overlay.opaque"
_OPAQUE: Final = b"y"
_DONE: Final = "trusted.outgate.marks"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def spell_marks_for_builds(layer: Path) -> None:
    """Give ``layer`` the marks that overlays of builds read. Done once for each layer; blocks while it walks it."""
    with suppress(OSError):
        os.getxattr(layer, _DONE, follow_symlinks=False)
        return
    _copy_marks(layer, _TRUSTED, _USER)


def spell_marks_for_sandboxes(layer: Path) -> None:
    """Give a ``layer`` that a build made the marks that overlays of sandboxes read."""
    _copy_marks(layer, _USER, _TRUSTED)


def _copy_marks(layer: Path, known: str, other: str) -> None:
    for directory in walk_directories(layer):
        with suppress(OSError):  # most directories have no mark (ENODATA)
            if os.getxattr(directory, known) == _OPAQUE:
                os.setxattr(directory, other, _OPAQUE)
    os.setxattr(layer, _DONE, b"1", follow_symlinks=False)


def walk_directories(top: Path) -> Iterator[int]:
    """A descriptor of each directory at and below ``top``, open until the next is asked for.

    The tree may be anybody's making: no link is followed, and neither deep nesting nor long paths matter. Nobody
    may change it meanwhile.
    """
    current = os.open(top, _DIRECTORY)
    to_visit = []
    try:
        yield current
        to_visit.append(_subdirectories(current))
        while to_visit:
            if to_visit[-1]:
                following = os.open(to_visit[-1].pop(), _DIRECTORY, dir_fd=current)
                os.close(current)
                current = following
                yield current
                to_visit.append(_subdirectories(current))
                continue
            to_visit.pop()
            if to_visit:
                following = os.open("..", _DIRECTORY, dir_fd=current)
                os.close(current)
                current = following
    finally:
        os.close(current)


def _subdirectories(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
