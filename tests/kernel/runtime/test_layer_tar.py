"""Layers as they should be, and one case for each way in which a layer can be meant to do harm."""

import io
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from outgate.runtime.layer_tar import LayerBounds, LayerError, unpack_layer
from outgate.runtime.tar_stream import TarError
from support.image_archives import directory, entry, hard_link, symlink, tar_of

pytestmark = pytest.mark.kernel

Entries = Sequence[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """The layer's directory; beside it lies what an attack would be after."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("untouched")
    made = tmp_path / "layer"
    made.mkdir()
    return made


def unpack(layer: Path, entries: Entries, bounds: LayerBounds | None = None) -> int:
    return unpack_layer(io.BytesIO(tar_of(entries)), layer, bounds or LayerBounds())


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_an_ordinary_layer(layer: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    # pax headers are text in the standard library; these bytes survive as such.
    capability_text = capability.decode("utf-8")
    size = unpack(
        layer,
        [
            directory("./"),
            directory("bin", 0o700),
            entry("./bin/tool", b"#!/bin/sh\n", mode=0o4755, uid=1, gid=2, mtime=1_000_000_000),
            entry("bin/ping", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability_text}),
            directory("bin", 0o755),
            symlink("sh", "/bin/tool"),
            hard_link("bin/same", "./bin/tool"),
            entry("deep/er/file", b"made without its directories"),
            entry("replaced", b"first"),
            entry("replaced", b"second"),
            entry("queue", type=tarfile.FIFOTYPE, mode=0o622),
            entry("dev/console", type=tarfile.CHRTYPE, devmajor=5, devminor=1),
        ],
    )
    tool = (layer / "bin/tool").stat()
    assert (tool.st_mode & 0o7777, tool.st_uid, tool.st_gid, tool.st_mtime) == (0o4755, 1, 2, 1_000_000_000)
    assert (layer / "bin/same").stat().st_ino == tool.st_ino
    assert os.getxattr(layer / "bin/ping", "security.capability") == capability
    assert (layer / "bin").stat().st_mode & 0o777 == 0o755
    assert str((layer / "sh").readlink()) == "/bin/tool"
    assert (layer / "deep/er/file").read_text() == "made without its directories"
    assert (layer / "replaced").read_text() == "second"
    assert stat.S_ISFIFO((layer / "queue").lstat().st_mode)
    assert list((layer / "dev").iterdir()) == []
    assert size == sum(
        len(data) for data in (b"#!/bin/sh\n", b"x", b"made without its directories", b"first", b"second")
    )


def test_whiteouts(layer: Path) -> None:
    unpack(
        layer,
        [
            entry("etc/.wh.gone"),
            entry("etc/.wh.back"),
            entry("etc/back", b"again"),
            entry("etc/stays", b"here"),
            entry("etc/.wh.stays"),
            entry("opaque/.wh..wh..opq"),
            entry("opaque/new", b"x"),
            entry(".wh..wh.plnk/1.2", b"notes of an older file system"),
        ],
    )
    assert is_whiteout(layer / "etc/gone")
    assert (layer / "etc/back").read_text() == "again"
    assert (layer / "etc/stays").read_text() == "here"
    assert os.getxattr(layer / "opaque", "trusted.overlay.opaque") == b"y"
    assert (layer / "opaque/new").read_text() == "x"


def test_an_absolute_name_lands_inside(layer: Path) -> None:
    unpack(layer, [entry("/outside/victim", b"inside"), entry("//a//b", b"x")])
    assert (layer / "outside/victim").read_text() == "inside"
    assert (layer / "a/b").read_text() == "x"


def test_an_absolute_hard_link_target_is_looked_for_inside(layer: Path) -> None:
    unpack(layer, [entry("etc/passwd", b"the layer's"), hard_link("copy", "/etc/passwd")])
    assert (layer / "copy").read_text() == "the layer's"


def test_a_directory_takes_the_place_of_a_link_of_its_name(layer: Path) -> None:
    before = _surroundings(layer)
    unpack(layer, [symlink("door", "../outside"), directory("door/", 0o777), entry("door/victim", b"inside")])
    assert not (layer / "door").is_symlink()
    assert (layer / "door/victim").read_text() == "inside"
    assert _surroundings(layer) == before


def test_attributes_that_overlayfs_obeys_are_not_taken(layer: Path) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.note": "x"}
    unpack(layer, [entry("d", type=tarfile.DIRTYPE, pax_headers=headers), entry("f", b"", pax_headers=headers)])
    assert os.listxattr(layer / "d") == []
    assert os.listxattr(layer / "f") == []


TOO_LARGE = LayerBounds(bytes_max=1000)
TOO_MANY = LayerBounds(entries_max=3)
HARMFUL: dict[str, tuple[str, Entries, LayerBounds]] = {
    "a name that climbs": ("climbs out", [entry("../outside/victim", b"x")], LayerBounds()),
    "a name that climbs from below": ("climbs out", [entry("a/b/../../../outside/victim", b"x")], LayerBounds()),
    "a directory that climbs": ("climbs out", [directory("../outside/new")], LayerBounds()),
    "a file through a link": (
        "passes through 'door'",
        [symlink("door", "../outside"), entry("door/victim", b"x")],
        LayerBounds(),
    ),
    "a file through an absolute link": (
        "passes through 'door'",
        [symlink("door", "/etc"), entry("door/outgate-was-here", b"x")],
        LayerBounds(),
    ),
    "a file through two links": (
        "passes through 'one'",
        [symlink("one", "two"), symlink("two", "../outside"), entry("one/victim", b"x")],
        LayerBounds(),
    ),
    "a file through a link deep below": (
        "passes through 'c'",
        [directory("a/b"), symlink("a/b/c", "../../../outside"), entry("a/b/c/victim", b"x")],
        LayerBounds(),
    ),
    "a directory turned into a link after its use": (
        "replaces a directory",
        [entry("a/first", b"x"), symlink("a", "../outside"), entry("a/victim", b"x")],
        LayerBounds(),
    ),
    "a whiteout through a link": (
        "passes through 'door'",
        [symlink("door", "../outside"), entry("door/.wh.victim")],
        LayerBounds(),
    ),
    "an opaque mark through a link": (
        "passes through 'door'",
        [symlink("door", "../outside"), entry("door/.wh..wh..opq")],
        LayerBounds(),
    ),
    "a whiteout of the directory above": ("whites out nothing", [entry("a/.wh...")], LayerBounds()),
    "a whiteout of nothing": ("whites out nothing", [entry("a/.wh.")], LayerBounds()),
    "a hard link to the outside": ("climbs out", [hard_link("mine", "../outside/victim")], LayerBounds()),
    "a hard link to a file of the host": (
        "does not hold",
        [directory("etc"), hard_link("mine", "/etc/passwd")],
        LayerBounds(),
    ),
    "a hard link through a link": (
        "passes through 'door'",
        [symlink("door", "../outside"), hard_link("mine", "door/victim")],
        LayerBounds(),
    ),
    "a hard link to a directory": ("not a file", [directory("a"), hard_link("mine", "a")], LayerBounds()),
    "a hard link to a whiteout": ("not a file", [entry(".wh.a"), hard_link("mine", "a")], LayerBounds()),
    "a hard link to nothing": ("to nothing", [hard_link("mine", "/")], LayerBounds()),
    "a block device": (
        "is a device",
        [entry("disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0)],
        LayerBounds(),
    ),
    "a character device": ("is a device", [entry("mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1)], LayerBounds()),
    "a whiteout as a device": ("is a device", [entry("bin", type=tarfile.CHRTYPE)], LayerBounds()),
    "an owner beyond the range": ("belongs to id 65536", [entry("f", b"", uid=65536)], LayerBounds()),
    "a group beyond the range": ("belongs to id 1879048192", [entry("f", b"", gid=0x7000_0000)], LayerBounds()),
    "a file larger than allowed": ("more than 1000 bytes", [entry("f", b"x" * 1001)], TOO_LARGE),
    "files that are too large together": (
        "more than 1000 bytes",
        [entry("a", b"x" * 600), entry("b", b"x" * 600)],
        TOO_LARGE,
    ),
    "a file that is replaced over and over": ("more than 1000 bytes", [entry("a", b"x" * 600)] * 2, TOO_LARGE),
    "more entries than allowed": ("more than 3 entries", [directory(name) for name in "abcd"], TOO_MANY),
    "a name that is too long": ("no file can have", [entry("x" * 256, b"")], LayerBounds()),
    "a path without end": ("no file can have", [directory("/".join("d" * 300))], LayerBounds()),
    "a file in place of a directory": ("replaces a directory", [directory("a"), entry("a", b"x")], LayerBounds()),
    "a directory below a file": ("passes through 'a'", [entry("a", b"x"), entry("a/b", b"x")], LayerBounds()),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_refused(layer: Path, case: str) -> None:
    complaint, entries, bounds = HARMFUL[case]
    before = _surroundings(layer)
    with pytest.raises(LayerError, match=complaint):
        unpack(layer, entries, bounds)
    assert _surroundings(layer) == before
    assert not Path("/etc/outgate-was-here").exists()


def _surroundings(layer: Path) -> tuple[object, ...]:
    """All that lies beside the layer, with its content and modes."""
    outside = layer.parent / "outside"
    return (
        sorted(os.listdir(layer.parent)),  # noqa: PTH208 - names alone
        outside.stat().st_mode,
        os.listxattr(outside),
        [(path.name, path.read_text(), path.stat().st_nlink) for path in outside.iterdir()],
    )


def test_modes_do_not_depend_on_the_processs_mask(layer: Path) -> None:
    mask = os.umask(0o077)
    try:
        unpack(
            layer,
            [entry("a/b/file", b"x", mode=0o666), directory("c", 0o777), entry("q", type=tarfile.FIFOTYPE, mode=0o622)],
        )
    finally:
        os.umask(mask)
    modes = {name: (layer / name).lstat().st_mode & 0o7777 for name in ("", "a", "a/b", "a/b/file", "c", "q")}
    assert modes == {"": 0o755, "a": 0o755, "a/b": 0o755, "a/b/file": 0o666, "c": 0o777, "q": 0o622}


def test_a_size_that_is_a_lie_is_damage(layer: Path) -> None:
    whole = tar_of([entry("f", b"x" * 5000)])
    with pytest.raises(TarError, match="in the middle"):
        unpack_layer(io.BytesIO(whole[:3000]), layer, LayerBounds())


def test_no_descriptor_stays_open(layer: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(LayerError):
        unpack(layer, [entry("a/b/c", b"x"), symlink("door", "/"), entry("door/x", b"x")])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
