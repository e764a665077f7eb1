"""Disks of anybody's making: what a devbox leaves on its own is copied, measured, merged and removed by root."""

import os
import stat
from pathlib import Path

import pytest

from outgate.runtime.build_marks import walk_directories
from support.sandbox_lab import Lab

pytestmark = pytest.mark.kernel

_NASTY = """
set -e
mkdir -p /home/user/nasty/empty && cd /home/user/nasty
ln -s / root && ln -s ../../../../../../../../etc/shadow up && ln -s /proc/self/fd/0 magic && ln -s loop loop
mkfifo pipe && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
truncate -s 8T sparse && cp /usr/bin/id suid && chmod 6755 suid && ln suid second && cp suid capable
mkdir sticky && chmod 1000 sticky && touch -- '-rf' "$(printf 'new\\nline')" "$(printf '\\377\\376')" '.wh.up' '.wh..wh..opq'
python3 - <<'P'
import os, struct
os.setxattr("capable", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0))
os.setxattr("empty", "user.overlay.opaque", b"y")
os.setxattr("empty", "user.overlay.redirect", b"/etc")
for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy"):
    try:
        os.setxattr("empty", name, b"y")
    except OSError:
        pass
    else:
        print("set", name)
for make in (lambda: os.mknod("whiteout", 0o020600, 0), lambda: os.mknod("disk", 0o060600, os.makedev(254, 0))):
    try:
        make()
    except PermissionError:
        pass
    else:
        print("made a node")
for _ in range(300):
    os.mkdir("d" * 10)
    os.chdir("d" * 10)
P
"""


@pytest.fixture(scope="module")
def nasty(lab: Lab) -> Lab:
    """The sandbox ``dbx_1`` with a disk made to mislead, a snapshot of it, and ``dbx_copy`` from that."""
    done = lab.execute(_NASTY, root=True)
    assert (done.exit_status, done.stdout) == (0, ""), done
    lab.run(lab.runtime.seal("dbx_1", "snp_nasty"))
    lab.start("dbx_copy", image="snp_nasty")
    return lab


def snapshot_of(lab: Lab) -> Path:
    (layer,) = (path for path in (lab.settings.state_dir / "layers").iterdir() if path.name.startswith("sealed-"))
    return layer / "home/user/nasty"


def test_links_are_kept_as_links_and_names_as_names(nasty: Lab) -> None:
    kept = snapshot_of(nasty)
    assert kept.joinpath("root").readlink() == Path("/")
    assert kept.joinpath("up").is_symlink()
    assert not kept.joinpath("loop").exists()
    assert {os.fsencode(path.name) for path in kept.iterdir()} >= {
        b"-rf",
        b"new\nline",
        b"\xff\xfe",
        b".wh.up",
        b".wh..wh..opq",
    }
    assert nasty.execute("ls -A /home/user/nasty/empty; readlink /home/user/nasty/up", box="dbx_copy").stdout == (
        "../../../../../../../../etc/shadow\n"
    )


def test_no_node_and_no_mark_of_the_overlays_got_into_a_layer(nasty: Lab) -> None:
    """A whiteout or a redirect of a box's own making would hide or show other layers' files."""
    marks = {f"trusted.overlay.{name}" for name in ("opaque", "redirect", "metacopy", "whiteout")}
    for directory in walk_directories(snapshot_of(nasty)):
        assert marks.isdisjoint(os.listxattr(directory))
        with os.scandir(directory) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                assert not stat.S_ISCHR(mode)
                assert not stat.S_ISBLK(mode)


def test_a_hole_of_terabytes_takes_no_room(nasty: Lab) -> None:
    kept = (snapshot_of(nasty) / "sparse").stat()
    assert kept.st_size == 8 << 40
    assert kept.st_blocks * 512 < 1 << 20


def test_set_user_id_files_are_kept_and_closed_to_the_hosts_users(nasty: Lab) -> None:
    kept = snapshot_of(nasty) / "suid"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o6755
    assert kept.stat().st_nlink == 2
    closed = nasty.settings.state_dir / "layers"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert "security.capability" in os.listxattr(snapshot_of(nasty) / "capable"), (
        "a snapshot keeps it, for the box alone"
    )
    assert nasty.execute("/home/user/nasty/suid -u", box="dbx_copy").stdout == "1000\n"


def test_a_tree_deeper_than_any_path_goes_away_with_its_box(nasty: Lab) -> None:
    deep = nasty.execute(
        'cd /home/user && python3 -c \'import os\nfor _ in range(700): os.mkdir("deep-----"); os.chdir("deep-----")\n'
        "print(len(os.getcwd()))'",
        box="dbx_copy",
    )
    assert deep.exit_status != 0 or int(deep.stdout) > 4096
    nasty.run(nasty.runtime.stop("dbx_copy"))
    assert not (nasty.settings.state_dir / "sandboxes/dbx_copy").exists()
    assert list((nasty.settings.state_dir / "trash").iterdir()) == []
