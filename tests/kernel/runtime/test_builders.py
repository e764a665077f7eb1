"""A builder: what a hostile Dockerfile finds in it, and what becomes of what it leaves."""

import os
import shutil
from pathlib import Path

import pytest

from outgate.agent.build_dockerfile import CONTEXT, DOCKERFILE, PREPARE_SCRIPT, SCRIPT, render_script
from outgate.runtime.base import SandboxError, SandboxNotFoundError
from outgate.runtime.build_stage import build_directory
from outgate.runtime.image_import import import_image
from support.image_archives import directory, entry, layout_files, tar_of
from support.sandbox_lab import NO_TRACES, Finished, Lab, find_traces

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed"),
]

BUILDER = "bpt_1"


def build(lab: Lab, dockerfile: str, box: str = BUILDER, files: str = "true") -> Finished:
    """Build in a fresh builder. ``files``: a command that fills the context."""
    lab.run(lab.runtime.stop(box))
    lab.start(box, is_builder=True, memory_mib=1024, pids_max=400)
    script = render_script({"FROM_ARG": "given"}, {})
    return lab.execute(
        f"exec 2>&1; set -e\n{PREPARE_SCRIPT}\n"
        f"cat >{DOCKERFILE} <<'END-OF-FILE'\n{dockerfile}\nEND-OF-FILE\n"
        f"cat >{SCRIPT} <<'END-OF-FILE'\n{script}END-OF-FILE\n"
        f"cd {CONTEXT}\n{files}\nsh {SCRIPT}",
        box=box,
        root=True,
    )


def seal(lab: Lab, name: str, box: str = BUILDER) -> int:
    return lab.run(lab.runtime.seal_build(box, name))


@pytest.fixture(scope="module")
def host(shared: Lab) -> Lab:
    """A lab whose stock image has the name that Dockerfiles like to say."""
    shared.images.alias("stock", "ubuntu:22.04")
    return shared


def test_a_dockerfile_becomes_an_image_upon_this_hosts_own_programs(host: Lab) -> None:
    built = build(
        host,
        "ARG BASE=ubuntu:22.04\nFROM ${BASE} AS first\nRUN echo made >/made\n"
        "FROM ubuntu:22.04\nARG FROM_ARG\nENV SAID=$FROM_ARG\nWORKDIR /srv/here\n"
        "RUN rm -rf /usr/share/doc && mkdir /usr/share/doc && echo own >/usr/share/doc/own && rm /etc/shells\n"
        "COPY --from=first /made /opt/made\nCOPY file /opt/file\n",
        files="echo content >file",
    )
    assert built.exit_status == 0, built.stdout
    assert 0 < seal(host, "bpt_made") < 1 << 20
    host.start("dbx_made", image="bpt_made")
    seen = host.execute(
        "cat /opt/made /opt/file; ls /usr/share/doc /etc/shells; echo $SAID; ls /usr/bin/env", box="dbx_made"
    )
    assert seen.stdout == "made\ncontent\n/usr/share/doc:\nown\ngiven\n/usr/bin/env\n"
    assert "/etc/shells" in seen.stderr
    # Built upon in turn, what was removed stays removed, in the directories that were made anew too.
    host.images.alias("bpt_made", "mine:1")
    upon = build(host, "FROM mine:1\nRUN ls /usr/share/doc && cat /opt/file && ! test -e /etc/shells && echo $SAID\n")
    assert upon.exit_status == 0, upon.stdout
    assert "own\ncontent\ngiven\n" in upon.stdout
    host.images.remove("mine:1")
    host.run(host.runtime.stop("dbx_made"))


def test_an_imported_image_hides_what_its_layers_hide(host: Lab, tmp_path: Path) -> None:
    low = tar_of([directory("d"), entry("d/low", b"low"), entry("gone", b"x")])
    high = tar_of([directory("d"), entry("d/.wh..wh..opq"), entry("d/high", b"high"), entry(".wh.gone")])
    layout = tmp_path / "layout"
    for name, data in layout_files([low, high], "amd64" if os.uname().machine == "x86_64" else "arm64").items():
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).write_bytes(data)
    import_image(host.images, layout, ("team/layers:1",))
    built = build(
        host, "FROM team/layers:1 AS layers\nFROM stock\nCOPY --from=layers / /copy/\nRUN cd /copy && ls . d\n"
    )
    assert built.exit_status == 0, built.stdout
    assert ".:\nd\n\nd:\nhigh\n" in built.stdout


def test_a_stage_may_be_nothing_but_an_image(host: Lab) -> None:
    built = build(host, "FROM ubuntu:22.04\n")
    assert built.exit_status == 0, built.stdout
    assert seal(host, "bpt_same") == 0
    host.start("dbx_same", image="bpt_same")
    assert host.execute("echo runs", box="dbx_same").stdout == "runs\n"
    host.run(host.runtime.stop("dbx_same"))


def test_accounts_images_are_nobodys_to_build_upon(host: Lab) -> None:
    for name in ("bpt_others", "snp_others"):
        host.images.alias("stock", name)
        built = build(host, f"FROM {name}\nRUN true\n")
        assert built.exit_status != 0
        assert "image not known" in built.stdout
        host.images.remove(name)


def test_nothing_is_asked_of_a_registry(host: Lab) -> None:
    built = build(host, "FROM docker.io/library/debian:12\n")
    assert built.exit_status != 0
    assert "image not known" in built.stdout


def test_a_step_is_nobody_on_the_host_and_may_do_no_more_than_in_a_devbox(host: Lab) -> None:
    built = build(
        host,
        "FROM stock\nRUN set +e; cat /proc/self/uid_map; grep -e CapEff -e NoNewPrivs /proc/self/status;"
        " unshare -U true; unshare -n true; unshare -m true; mount -t tmpfs none /mnt; mknod /opt/sda b 8 0;"
        " ls /root/../../../home /build 2>&1; python3 -c 'import socket; socket.socket(17, 3)'; exit 0\n",
    )
    assert built.exit_status == 0, built.stdout
    lines = built.stdout.splitlines()
    mapped = next(line.split() for line in lines if line.split()[:1] == ["0"])
    assert (int(mapped[1]) >= 0x7000_0000, mapped[2]) == (True, "65536")
    assert "NoNewPrivs:\t1" in lines
    effective = int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16)
    assert effective & ~0x800405FB == 0  # not SYS_ADMIN, MKNOD, NET_RAW, NET_ADMIN, SYS_PTRACE
    assert built.stdout.count("unshare failed: Operation not permitted") == 3
    assert "mount: /mnt: " in built.stdout
    assert "mknod: /opt/sda: Operation not permitted" in built.stdout
    assert "cannot access '/build'" in built.stdout
    assert "OSError" in built.stdout


def test_the_builder_itself_cannot_reach_past_its_own_tree(host: Lab) -> None:
    host.run(host.runtime.stop(BUILDER))
    host.start(BUILDER, is_builder=True, memory_mib=512)
    tried = host.execute(
        "set +e; exec 2>&1; unshare -U true; unshare -n true; unshare -p true; nsenter -t 1 -n true;"
        " mount -o remount,rw /build/bases; umount -l /build/bases/overlay/*/diff;"
        " touch /build/bases/x; find /build/bases -maxdepth 4 -name shadow;"
        " mkdir /o && mount -t overlay none /o -o lowerdir=$(ls -d /build/bases/overlay/*/diff | head -1):/etc;"
        " find /build/bases/overlay/*/diff -maxdepth 1 -printf '%P\\n' | sort -u; mount -t ext4 /dev/vda /mnt; exit 0",
        box=BUILDER,
        root=True,
    )
    text = tried.stdout
    assert text.count("unshare failed: Operation not permitted") == 3, text
    assert "remount" not in text or "permission denied" in text
    assert "touch: cannot touch '/build/bases/x': Read-only file system" in text
    shown = set(text.split())
    # Of the host's root file system nothing shows but its directories of programs.
    assert {"usr", "etc"} <= shown
    assert not {"boot", "lost+found"} & shown
    assert not Path("/o").exists()


def test_what_a_build_leaves_is_not_believed(host: Lab) -> None:
    for lie, complaint in (
        ("echo [] >storage/overlay-images/images.json", "left no image"),
        ("ln -sf /etc/passwd storage/overlay-images/images.json", "left no storage/overlay-images/images.json"),
        (r"sed -i 's,\"id\":\"..,\"id\":\"./,' storage/overlay-images/images.json", "left no image"),
        ("rm -r storage/overlay-layers && ln -s /etc storage/overlay-layers", "left no storage/overlay-layers"),
        ("echo [] >storage/overlay-layers/layers.json", "do not fit together"),
        ("echo nonsense >storage/overlay-images/images.json", "cannot be read"),
        ("d=$(ls -d storage/overlay/*/diff | head -1) && rm -r $d && ln -s /etc $d", "left no storage/overlay/"),
        ("truncate -s 20M storage/overlay-images/images.json", "more than 16777216 bytes"),
    ):
        assert build(host, "FROM stock\nRUN echo x >/x\n").exit_status == 0
        done = host.execute(f"cd /build && {lie}", box=BUILDER, root=True)
        assert done.exit_status == 0, done.stderr
        with pytest.raises(SandboxError, match=complaint):
            seal(host, "bpt_lie")
        assert host.run(host.runtime.find_image_size("bpt_lie")) is None
    assert (Path("/etc") / "passwd").is_file()


def test_a_sandbox_that_is_no_builder_has_no_build_to_seal(host: Lab) -> None:
    with pytest.raises(SandboxNotFoundError):
        seal(host, "bpt_none", box="dbx_1")
    assert host.execute("ls /build", root=True).exit_status != 0


def test_nothing_of_a_build_stays_on_the_host(lab: Lab) -> None:
    lab.images.alias("stock", "ubuntu:22.04")
    assert build(lab, "FROM ubuntu:22.04\nRUN echo x >/x\n").exit_status == 0
    seal(lab, "bpt_made")
    assert not build_directory(lab.settings.state_dir / "sandboxes" / BUILDER / "disk").joinpath("merged").exists()
    lab.run(lab.runtime.stop(BUILDER))
    lab.run(lab.runtime.remove_image("bpt_made"))
    assert find_traces(lab) == NO_TRACES
