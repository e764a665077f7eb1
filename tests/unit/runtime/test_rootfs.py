"""Which overlays an image becomes, and what belongs to one sandbox alone."""

from pathlib import Path, PurePosixPath

import pytest

from outgate.runtime.base import SandboxError, SandboxSpec, SandboxUser
from outgate.runtime.etc import render_own_files
from outgate.runtime.rootfs import OverlayMount, Staging, plan_overlays


def test_an_imported_image_is_one_overlay(tmp_path: Path) -> None:
    layers = (tmp_path / "top", tmp_path / "base")
    assert plan_overlays(layers, ()) == (OverlayMount(PurePosixPath(), layers),)


def test_a_host_directory_lies_below_the_layers_that_have_it(tmp_path: Path) -> None:
    top, base, link = tmp_path / "top", tmp_path / "base", tmp_path / "link"
    (top / "usr").mkdir(parents=True)
    base.mkdir()
    link.mkdir()
    (link / "usr").symlink_to("/etc")
    assert plan_overlays((top, link, base), (PurePosixPath("/usr"),)) == (
        OverlayMount(PurePosixPath(), (top, link, base)),
        OverlayMount(PurePosixPath("usr"), (top / "usr", Path("/usr"))),
    )


def test_staging_behind_a_closed_door_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(SandboxError, match=f"{closed} is closed to other users"):
        Staging(closed / "sandbox").ensure()


def test_staging_is_removed(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "sandbox")
    for directory in (staging.rootfs, staging.sys, staging.layers):
        directory.mkdir(parents=True)
    staging.remove()
    staging.remove()
    assert list(tmp_path.iterdir()) == []


def test_own_files() -> None:
    spec = SandboxSpec("d", Path("/n"), ("10.0.0.1", "fd00::1"), SandboxUser("user", 1000), hostname="box")
    assert render_own_files(spec) == {
        "resolv.conf": "nameserver 10.0.0.1\nnameserver fd00::1\n",
        "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n",
        "hostname": "box\n",
    }
