"""What of a host gets into the stock image. The host is one made up for the test."""

import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from outgate.runtime.base import SandboxError
from outgate.runtime.layers import digest_tree
from outgate.runtime.stock import build_stock_layer, find_host_directories

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    for directory in ("usr/bin", "usr/lib", "lib32", "root", "home/ada", "work", "etc/ssl/certs", "etc/ssl/private"):
        (root / directory).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    for name in (
        "passwd",
        "shadow",
        "ssl/certs/ca.pem",
        "ssl/certs/private.pem",
        "ssl/private/key",
        "npmrc",
        "services",
    ):
        (root / "etc" / name).write_text(f"the host's {name}")
        (root / "etc" / name).chmod(0o644)
    (root / "etc/ssl/certs/private.pem").chmod(0o640)
    (root / "etc/ssl/certs/hash.0").symlink_to("ca.pem")
    os.mkfifo(root / "etc/ssl/certs/fifo")
    (root / "etc/skel").mkdir()
    (root / "etc/skel/.profile").write_text("profile")
    return root


def build(tmp_path: Path, host: Path, name: str = "layer") -> Path:
    layer = tmp_path / name
    layer.mkdir()
    build_stock_layer(layer, host)
    return layer


def test_only_the_allowed_and_readable_is_copied(tmp_path: Path, host: Path) -> None:
    layer = build(tmp_path, host)
    texts = {
        str(path.relative_to(layer)): path.read_text()
        for path in layer.rglob("*")
        if path.is_file() and not path.is_symlink() and "the host's" in path.read_text()
    }
    assert texts == {"etc/ssl/certs/ca.pem": "the host's ssl/certs/ca.pem", "etc/services": "the host's services"}
    assert sorted(path.name for path in (layer / "etc/ssl/certs").iterdir()) == ["ca.pem", "hash.0"]
    assert [path.name for path in (layer / "home").iterdir()] == ["user"]
    assert list((layer / "root").iterdir()) == []
    assert not (layer / "work").exists()
    assert not (layer / "etc/shadow").exists()


def test_program_directories_are_mount_points_and_links_stay_links(tmp_path: Path, host: Path) -> None:
    layer = build(tmp_path, host)
    assert find_host_directories(host) == (PurePosixPath("/usr"), PurePosixPath("/lib32"))
    assert list((layer / "usr").iterdir()) == []
    assert str((layer / "bin").readlink()) == "usr/bin"


def test_modes_and_owners_do_not_depend_on_the_daemons_mask(tmp_path: Path, host: Path) -> None:
    mask = os.umask(0o077)
    try:
        layer = build(tmp_path, host)
    finally:
        os.umask(mask)
    for name, mode in (
        ("", 0o755),
        ("etc", 0o755),
        ("etc/passwd", 0o644),
        ("tmp", 0o1777),
        ("root", 0o700),
        ("usr", 0o755),
    ):
        assert (layer / name).stat().st_mode & 0o7777 == mode, name
    assert (layer / "etc/ssl").stat().st_mode & 0o7777 == 0o755
    assert {(layer / name).stat().st_uid for name in ("home/user", "home/user/.profile")} == {1000}


def test_the_same_host_gives_the_same_digest_and_a_changed_one_another(tmp_path: Path, host: Path) -> None:
    first = digest_tree(build(tmp_path, host, "first"))
    assert digest_tree(build(tmp_path, host, "second")) == first
    (host / "etc/ssl/certs/ca.pem").write_text("renewed")
    assert digest_tree(build(tmp_path, host, "third")) != first


def test_an_etc_that_is_far_too_large_is_refused(tmp_path: Path, host: Path) -> None:
    with (host / "etc/ssl/certs/huge").open("wb") as file:
        file.truncate(33 << 20)
    (host / "etc/ssl/certs/huge").chmod(0o644)
    with pytest.raises(SandboxError, match="more than 32 MiB"):
        build(tmp_path, host)


def test_what_only_the_hosts_root_may_read_below_usr_local_is_whited_out(tmp_path: Path, host: Path) -> None:
    """With mapped ids a sandbox's root owns the host's files: it could read all that the host's root can."""
    for name, mode in (("bin/tool", 0o755), ("bin/admin", 0o700), ("etc/tool.key", 0o640)):
        file = host / "usr/local" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        file.chmod(mode)
    (host / "usr/local/lib/closed").mkdir(parents=True)
    (host / "usr/local/lib/closed").chmod(0o711)
    (host / "usr/local/lib").chmod(0o2775)
    os.chown(host / "usr/local/lib", 0, 50)
    local = build(tmp_path, host) / "usr/local"
    hidden = {str(path.relative_to(local)) for path in local.rglob("*") if path.is_char_device()}
    assert hidden == {"bin/admin", "etc/tool.key", "lib/closed"}
    assert {path.lstat().st_rdev for path in local.rglob("*") if path.is_char_device()} == {0}
    shown = (local / "lib").stat()
    assert (stat.S_IMODE(shown.st_mode), shown.st_gid) == (0o2775, 50)
