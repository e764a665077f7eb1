"""Images imported, listed, run and removed; wrong ones leave the store as it was."""

import gzip
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from outgate.errors import InvalidValueError
from outgate.runtime.base import ImageNotFoundError, SandboxError
from outgate.runtime.image_import import import_image
from outgate.runtime.images import ImageStore
from outgate.runtime.layer_tar import LayerBounds, LayerError
from outgate.runtime.tar_stream import TarError
from support.image_archives import (
    ARCHITECTURE,
    directory,
    entry,
    layout_files,
    saved_files,
    sha256,
    symlink,
    tar_of,
    write_directory,
    write_tar,
)
from support.sandbox_lab import NO_TRACES, Lab, find_traces

pytestmark = pytest.mark.kernel

OWN = ARCHITECTURE[platform.machine()]
OTHER = "arm64" if OWN == "amd64" else "amd64"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "state")
    made.ensure()
    return made


def contents(store: ImageStore, tmp_path: Path) -> tuple[object, ...]:
    state = tmp_path / "state"
    return store.summaries(), sorted(
        path.name for path in (*(state / "layers").iterdir(), *(state / "incoming").iterdir())
    )


LAYERS = (tar_of([entry("base", b"base" * 100)]), tar_of([entry("top", b"top")]))


def forms(tmp_path: Path) -> dict[str, Callable[[], Path]]:
    layout = layout_files(LAYERS, OWN, name="box:1")

    def compressed() -> Path:
        path = write_tar(layout, tmp_path / "image.tar")
        (tmp_path / "image.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
        return tmp_path / "image.tar.gz"

    return {
        "directory": lambda: write_directory(layout, tmp_path / "image"),
        "tar": lambda: write_tar(layout, tmp_path / "image.tar"),
        "tar.gz": compressed,
        "plain layers": lambda: write_tar(layout_files(LAYERS, OWN, name="box:1", compress=False), tmp_path / "i.tar"),
        "docker save": lambda: write_tar(saved_files(LAYERS, OWN, ["box:1"]), tmp_path / "saved.tar"),
    }


@pytest.mark.parametrize("form", ["directory", "tar", "tar.gz", "plain layers", "docker save"])
def test_all_forms_are_one_image(store: ImageStore, tmp_path: Path, form: str) -> None:
    summary = import_image(store, forms(tmp_path)[form]())
    assert (summary.names, summary.layers, summary.size_bytes) == (("box:1",), 2, 403)
    with store.resolve("box:1") as image:
        assert [sorted(path.name for path in layer.iterdir()) for layer in image.layers] == [["top"], ["base"]]
        assert image.host_directories == ()


def test_an_import_that_is_repeated_changes_nothing(store: ImageStore, tmp_path: Path) -> None:
    path = forms(tmp_path)["tar"]()
    first = import_image(store, path, ["box:2"])
    before = contents(store, tmp_path)
    assert import_image(store, path, ["box:2"]) == first
    assert contents(store, tmp_path) == before


def test_names_move_and_images_go_with_their_last_name(store: ImageStore, tmp_path: Path) -> None:
    first = import_image(store, write_tar(layout_files(LAYERS[:1], OWN), tmp_path / "1.tar"), ["box"])
    second = import_image(store, write_tar(layout_files(LAYERS, OWN), tmp_path / "2.tar"), ["box", "other"])
    with pytest.raises(ImageNotFoundError):
        store.remove(first.digest)
    store.alias("other", "third:latest")
    store.remove("box")
    assert [summary.names for summary in store.summaries()] == [("other", "third:latest")]
    store.remove(second.digest)
    assert contents(store, tmp_path) == ((), [])


def changed(files: dict[str, bytes], change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """The same with the first layer's blob changed under its old name."""
    digest = sha256(gzip.compress(LAYERS[0], mtime=0))
    name = "blobs/" + digest.replace(":", "/")
    return files | {name: change(files[name])}


def with_false_diff_id() -> dict[str, bytes]:
    files = layout_files(LAYERS, OWN, name="box:1")
    honest = layout_files((LAYERS[0], b"another"), OWN, name="box:1")
    (descriptor,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files["blobs/" + descriptor["digest"].replace(":", "/")])
    (other,) = json.loads(honest["index.json"])["manifests"]
    manifest["config"] = json.loads(honest["blobs/" + other["digest"].replace(":", "/")])["config"]
    data = json.dumps(manifest).encode()
    index = json.dumps({"manifests": [{"digest": sha256(data)}]}).encode()
    return honest | files | {"blobs/" + sha256(data).replace(":", "/"): data, "index.json": index}


BAD: dict[str, tuple[str, Callable[[], dict[str, bytes]]]] = {
    "a layer that was changed": (
        "does not have the digest",
        lambda: changed(layout_files(LAYERS, OWN), lambda _: gzip.compress(LAYERS[1])),
    ),
    "a layer with bytes behind its end": (
        "damaged|does not have the digest",
        lambda: changed(layout_files(LAYERS, OWN), lambda blob: blob + b"more"),
    ),
    "a layer that is cut": (
        "damaged|in the middle",
        lambda: changed(layout_files(LAYERS, OWN), lambda blob: blob[:60]),
    ),
    "a layer that is no archive": (
        "not a tar archive",
        lambda: changed(layout_files(LAYERS, OWN), lambda _: b"\x01" * 4096),
    ),
    "a layer by zstd": (
        "compressed by zstd",
        lambda: changed(layout_files(LAYERS, OWN), lambda _: b"\x28\xb5\x2f\xfd" + bytes(100)),
    ),
    "a layer that is not the configuration's": ("unpacks to something else", with_false_diff_id),
    "a layer that climbs out": (
        "climbs out",
        lambda: layout_files((tar_of([entry("../../images.json", b"x")]),), OWN),
    ),
    "a bomb": ("more bytes than are allowed|more than", lambda: layout_files((bytes(1 << 24),), OWN)),
    "a bomb behind the archive's end": (
        "more bytes than are allowed",
        lambda: layout_files((LAYERS[0] + bytes(1 << 24),), OWN),
    ),
    "an image for another machine": (f"image is for linux/{OTHER}", lambda: layout_files(LAYERS, OTHER)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_leaves_the_store_as_it_was(store: ImageStore, tmp_path: Path, case: str) -> None:
    complaint, make = BAD[case]
    import_image(store, write_tar(layout_files(LAYERS[1:], OWN), tmp_path / "good.tar"), ["good"])
    before = contents(store, tmp_path)
    with pytest.raises((LayerError, TarError), match=complaint):
        import_image(store, write_tar(make(), tmp_path / "bad.tar"), ["bad"], LayerBounds(1 << 20, 1000))
    assert contents(store, tmp_path) == before


@pytest.mark.parametrize("name", ["stock", "sha256:" + "0" * 64, "a b", "", "-x", "é", "x" * 256])
def test_names_that_no_image_can_have(store: ImageStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidValueError, match="cannot name an image"):
        import_image(store, forms(tmp_path)["tar"](), [name])
    with pytest.raises(InvalidValueError, match="brings no name"):
        import_image(store, write_tar(layout_files(LAYERS, OWN), tmp_path / "unnamed.tar"))
    assert contents(store, tmp_path) == ((), [])


def test_an_archive_that_is_none(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="cannot be read"):
        import_image(store, tmp_path / "absent.tar", ["x"])
    (tmp_path / "text").write_text("no archive" * 1000)
    with pytest.raises(TarError, match="not a tar archive"):
        import_image(store, tmp_path / "text", ["x"])
    (tmp_path / "link").mkdir()
    write_directory(layout_files(LAYERS, OWN), tmp_path / "link")
    (tmp_path / "link" / "index.json").unlink()
    (tmp_path / "link" / "index.json").symlink_to("/etc/passwd")
    with pytest.raises(LayerError, match="lacks the file"):
        import_image(store, tmp_path / "link", ["x"])


def small_system() -> list[tuple[tarfile.TarInfo, bytes]]:
    """What a shell and a few programs of this host need, at the places where it has them."""
    programs = ("sh", "sleep", "cat", "id", "mkdir", "chown", "chmod", "ls", "rm")
    paths = [Path(shutil.which(program) or program).resolve() for program in programs]
    libraries: set[str] = set()
    for path in paths:
        words = subprocess.run(("ldd", path), capture_output=True, text=True, check=True).stdout.split()
        libraries.update(word for word in words if word.startswith("/"))
    return [
        *(entry(f"bin/{name}", path.read_bytes(), mode=0o755) for name, path in zip(programs, paths, strict=True)),
        *(entry(library, Path(library).read_bytes(), mode=0o755) for library in sorted(libraries)),
    ]


@pytest.fixture
def small_image(lab: Lab, tmp_path: Path) -> str:
    base = [*small_system(), entry("etc/gone", b"x"), entry("etc/kept", b"base"), entry("data/old", b"x")]
    top = [entry("etc/.wh.gone"), entry("data/.wh..wh..opq"), entry("data/new", b"new"), directory("srv/own", 0o755)]
    top.append(entry("srv/own/file", b"x", uid=1000, gid=1000, mode=0o600))
    top.append(symlink("etc/resolv.conf", "../run/resolver/stub.conf"))
    layers = (tar_of(base), tar_of(top))
    files = layout_files(layers, OWN, environment=["FROM_IMAGE=yes", "PATH=/opt/bin:/bin"], name="small:1")
    return import_image(lab.images, write_tar(files, tmp_path / "small.tar")).names[0]


def test_a_sandbox_of_an_imported_image(lab: Lab, small_image: str) -> None:
    lab.start(image=small_image, environment={"FROM_IMAGE": "no, from the sandbox"})
    assert lab.execute("id; echo $0; ls /usr; ls /etc /data; echo $PATH; echo $FROM_IMAGE").stdout == (
        # No /etc/nsswitch.conf and no bash, python or the rest of the host: only what the image brings.
        "uid=1000(user) gid=1000(user) groups=1000(user)\n/bin/sh\n"
        "/data:\nnew\n\n/etc:\ngroup\nhostname\nhosts\nkept\npasswd\nresolv.conf\n"
        "/opt/bin:/bin\nno, from the sandbox\n"
    )
    assert lab.execute("cat /etc/resolv.conf").stdout == "nameserver 10.9.8.7\n"
    assert lab.execute("cat /srv/own/file && echo y >/srv/own/file && cat /srv/own/file").stdout == "xy\n"
    assert lab.execute("ls -ld /home/user /tmp").stdout.count("user") == 3
    assert lab.execute("rm /etc/kept && ls /etc/kept", root=True).exit_status != 0
    with lab.images.resolve(small_image) as image:
        assert (image.layers[1] / "etc/kept").read_text() == "base"


def test_a_running_sandbox_keeps_the_layers_of_an_image_that_was_removed(lab: Lab, small_image: str) -> None:
    lab.start(image=small_image)
    lab.images.remove(small_image)
    lab.close()
    lab.open()
    assert lab.execute("cat /etc/kept").stdout == "base"
    lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES
    with pytest.raises(ImageNotFoundError):
        lab.start(image=small_image)


def test_an_image_without_a_shell_says_so(lab: Lab, tmp_path: Path) -> None:
    files = layout_files((tar_of([entry("readme", b"nothing to run")]),), OWN, name="empty:1")
    import_image(lab.images, write_tar(files, tmp_path / "empty.tar"))
    with pytest.raises(SandboxError, match=r"did not start: .*/bin/sh"):
        lab.start(image="empty:1")
    assert find_traces(lab) == NO_TRACES


def test_links_in_an_image_do_not_lead_its_mounts_to_the_host(lab: Lab, tmp_path: Path) -> None:
    """Mount points that are links are followed inside the sandbox's root alone."""
    trap = tmp_path / "trap"
    trap.mkdir()
    links = [symlink(name, str(trap)) for name in ("sys", "etc/hosts", "home", "var")]
    files = layout_files((tar_of([*small_system(), *links]),), OWN, name="trap:1")
    import_image(lab.images, write_tar(files, tmp_path / "trap.tar"))
    try:
        lab.start(image="trap:1")
        lab.execute("echo x >/home/x; mkdir -p /var/x", root=True)
    except SandboxError:
        assert find_traces(lab) == NO_TRACES
    assert list(trap.iterdir()) == []
    assert "/sys" in Path("/proc/self/mountinfo").read_text()


def test_the_stock_image_cannot_be_removed_or_replaced(lab: Lab) -> None:
    with pytest.raises(InvalidValueError, match="cannot be removed"):
        lab.images.remove("stock")
    with pytest.raises(InvalidValueError, match="cannot name an image"):
        lab.images.alias("stock", "stock")
    lab.images.alias("stock", "ubuntu:22.04")
    lab.start(image="ubuntu:22.04")
    assert lab.execute("echo fine").stdout == "fine\n"
