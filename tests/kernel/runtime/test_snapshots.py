"""Images out of disks: what is in them, what they leave alone, and what a crash leaves of them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgate.errors import InvalidValueError
from outgate.runtime import cgroups, snapshots
from outgate.runtime.base import ExecSpec, ImageNotFoundError, SandboxError, SandboxNotFoundError, SandboxPhase
from outgate.runtime.freezer import frozen
from outgate.runtime.images import ImageStore
from outgate.runtime.layers import make_sealed_name
from support.sandbox_lab import NO_TRACES, WAIT_S, Lab, find_traces

pytestmark = pytest.mark.kernel

LAYOUT = cgroups.observe_layout()

_FILL = """
set -e
umask 027
mkdir -p ~/deep/$(printf 'd/%.0s' $(seq 40)) /opt/box
echo content >/opt/box/file
ln /opt/box/file /opt/box/second
ln -s ../nowhere /opt/box/link
mkfifo /opt/box/fifo
chown 1000:7 /opt/box/file
chmod 4751 /opt/box/file
echo local >/usr/local/bin/tool; chmod 755 /usr/local/bin/tool
rm -r /usr/share/doc
rm /etc/shells
rm -r /etc/alternatives; mkdir /etc/alternatives; echo only >/etc/alternatives/only
truncate -s 1G /opt/box/holes; printf end | dd of=/opt/box/holes bs=1 seek=1000000000 conv=notrunc status=none
python3 - <<'PYTHON'
import os
os.setxattr("/opt/box/holes", "user.note", b"kept")
os.setxattr("/opt/box/second", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
os.utime("/opt/box", (1_000_000_000, 1_000_000_000))
PYTHON
"""
_SHOW = """
cd /opt/box
cat file; stat -c '%n %F %a %u:%g %h' file second link fifo holes; readlink link
stat -c '%Y' .
python3 - <<'PYTHON'
import os
print(os.getxattr("holes", "user.note"), os.getxattr("second", "security.capability")[:8].hex())
status = os.stat("holes")
print(status.st_size, status.st_blocks * 512 < 1 << 20)
with open("holes", "rb") as file:
    file.seek(1000000000)
    print(file.read(3))
PYTHON
cat /usr/local/bin/tool; ls -d /usr/share/doc /etc/shells; ls /etc/alternatives; ls -d /usr/share/zoneinfo
cd ~user && find deep -type d | wc -l
"""


def show(lab: Lab, box: str) -> str:
    done = lab.execute(_SHOW, box=box, root=True)
    return done.stdout + done.stderr


def seal(lab: Lab, name: str, box: str = "dbx_1") -> int:
    return lab.run(lab.runtime.seal(box, name))


def halt(lab: Lab, box: str = "dbx_1") -> None:
    lab.run(lab.runtime.halt(box))


def layer_names(lab: Lab) -> set[str]:
    return {path.name for path in (lab.settings.state_dir / "layers").iterdir()}


def test_a_halted_sandbox_keeps_its_disk_and_boots_again(lab: Lab) -> None:
    lab.start()
    lab.execute("echo kept >~/file; setsid sleep 3000 &")
    halt(lab)
    observed = lab.run(lab.runtime.observe())["dbx_1"]
    assert (observed.phase, observed.pid) == (SandboxPhase.EXITED, None)
    traces = find_traces(lab)
    assert (traces.processes, traces.groups, traces.mounts) == (frozenset(), (), ())
    halt(lab)
    lab.start(generation=2)
    assert lab.execute("cat ~/file; pgrep -c sleep").stdout == "kept\n1\n"
    lab.run(lab.runtime.halt("dbx_absent"))


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "halted"])
def test_everything_comes_back_in_another_sandbox(lab: Lab, *, is_running: bool) -> None:
    lab.start("dbx_0")  # so that the ids of the source are not those of the copy
    lab.start()
    filled = lab.execute(_FILL, root=True)
    assert (filled.exit_status, filled.stderr) == (0, "")
    before = show(lab, "dbx_1")
    if not is_running:
        halt(lab)
    size_bytes = seal(lab, "snp_1")
    assert 4096 < size_bytes < 1 << 20
    assert lab.run(lab.runtime.find_image_size("snp_1")) == size_bytes
    lab.start("dbx_2", image="snp_1")
    assert show(lab, "dbx_2") == before
    assert "content\n" in before
    assert "kept" in before
    # The source goes on as if nothing had happened, and neither sees what the other does from now on.
    if not is_running:
        lab.start(generation=2)
    lab.execute("echo changed >/opt/box/file", box="dbx_1", root=True)
    assert show(lab, "dbx_2") == before
    lab.run(lab.runtime.stop("dbx_0"))
    lab.run(lab.runtime.stop("dbx_1"))
    assert show(lab, "dbx_2") == before


def test_sealing_again_under_the_same_name_does_nothing(lab: Lab) -> None:
    lab.start()
    size_bytes = seal(lab, "snp_1")
    lab.execute("head -c 1000000 /dev/urandom >~/more")
    assert seal(lab, "snp_1") == size_bytes
    assert seal(lab, "snp_2") > size_bytes


def test_machine_files_are_the_new_sandboxes_own(lab: Lab) -> None:
    lab.start(hostname="one")
    lab.execute("echo 6.6.6.6 evil >>/etc/hosts; echo evil >/etc/hostname; echo evil >/etc/resolv.conf", root=True)
    seal(lab, "snp_1")
    lab.start("dbx_2", image="snp_1", hostname="two", nameservers=("10.1.1.1",))
    seen = lab.execute("cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname", box="dbx_2").stdout
    assert "evil" not in seen
    assert "10.1.1.1" in seen
    assert seen.endswith("two\n")


def test_secrets_and_environment_of_the_source_stay_behind(lab: Lab) -> None:
    lab.start(environment={"TOKEN": "swordfish"})
    seal(lab, "snp_1")
    assert "swordfish" not in (lab.settings.state_dir / "images.json").read_text()
    lab.start("dbx_2", image="snp_1")
    assert lab.execute("echo [$TOKEN]; pgrep -c sleep", box="dbx_2").stdout == "[]\n1\n"


def test_a_running_sandbox_is_sealed_between_two_of_its_writes(lab: Lab) -> None:
    """Two counters that are never more than one apart, whenever the sandbox is looked at."""
    lab.start()
    writer = "i=0; while :; do i=$((i+1)); echo $i >~/a.new; mv ~/a.new ~/a; echo $i >~/b.new; mv ~/b.new ~/b; done"
    execution = lab.begin(writer)
    lab.execute("head -c 20000000 /dev/urandom >/tmp/much; until [ -s ~/b ]; do :; done")
    seal(lab, "snp_1")
    lab.start("dbx_2", image="snp_1")
    ahead, behind = map(int, lab.execute("cat ~/a ~/b", box="dbx_2").stdout.split())
    assert ahead - behind in (0, 1)
    before = int(lab.execute("cat ~/b").stdout)
    assert before >= behind
    lab.execute(f"until [ $(cat ~/b) -gt {before} ]; do :; done")
    lab.run(lab.runtime.exec_kill("dbx_1", execution))


def test_what_is_started_during_a_seal_runs_after_it(lab: Lab) -> None:
    lab.start()
    lab.execute("head -c 30000000 /dev/urandom >/tmp/much")

    async def both() -> None:
        sealing = asyncio.create_task(lab.runtime.seal("dbx_1", "snp_1"))
        await asyncio.sleep(0)
        executions = [lab.runtime.exec_start("dbx_1", ExecSpec(f"e{n}", "true")) for n in range(3)]
        await asyncio.gather(sealing, *executions)

    lab.run(both())
    assert [lab.wait(f"e{n}").exit_status for n in range(3)] == [0, 0, 0]


def test_the_end_of_a_sandbox_breaks_its_seal_off(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab.start()
    copying = tmp_path / "copying"
    replace_copy(monkeypatch, f"touch {copying}; sleep 1000")

    async def both() -> BaseException | int:
        sealing = asyncio.create_task(lab.runtime.seal("dbx_1", "snp_1"))
        while not copying.exists():  # noqa: ASYNC110 - a process of its own makes it
            await asyncio.sleep(0.01)
        await lab.runtime.stop("dbx_1")
        return (await asyncio.gather(sealing, return_exceptions=True))[0]

    error = lab.run(both())
    assert isinstance(error, SandboxError)
    assert "ended while" in error.message
    assert find_traces(lab) == NO_TRACES
    assert lab.run(lab.runtime.find_image_size("snp_1")) is None


def test_a_disk_that_cannot_be_copied_leaves_the_sandbox_going(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.start()
    replace_copy(monkeypatch, "mkdir $1; echo half >$1/half; echo no room >&2; exit 1")
    with pytest.raises(SandboxError, match="could not be copied: no room"):
        seal(lab, "snp_1")
    assert lab.execute("echo goes on").stdout == "goes on\n"
    assert not list((lab.settings.state_dir / "trash").iterdir())
    with pytest.raises(ImageNotFoundError):
        lab.start("dbx_2", image="snp_1")


def test_a_disk_that_would_fill_the_hosts_is_not_copied(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.start()
    monkeypatch.setattr(snapshots, "_ROOM_BYTES_MIN", 1 << 60)
    with pytest.raises(SandboxError, match="not enough room"):
        seal(lab, "snp_1")
    assert lab.execute("echo goes on").stdout == "goes on\n"
    halt(lab)
    assert seal(lab, "snp_1") > 0  # nothing is copied


def test_a_disk_that_takes_too_long_is_let_go(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.start()
    monkeypatch.setattr(snapshots, "_SEAL_S_MAX", 0.3)
    replace_copy(monkeypatch, "sleep 60")
    with pytest.raises(SandboxError, match="could not be copied within"):
        seal(lab, "snp_1")
    assert lab.execute("echo goes on").stdout == "goes on\n"


def replace_copy(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have ``script`` run in place of cp; its $1 is the copy to be made."""
    plain = snapshots._Bench.run

    def run(bench: Any, *arguments: str | Path) -> str:
        if arguments[0] == "cp":
            arguments = ("sh", "-c", script, "sh", arguments[-1])
        return plain(bench, *arguments)

    monkeypatch.setattr(snapshots._Bench, "run", run)


def test_there_is_nothing_to_seal_of_an_unknown_sandbox(lab: Lab) -> None:
    with pytest.raises(SandboxNotFoundError):
        seal(lab, "snp_1", "dbx_absent")
    lab.start()
    with pytest.raises(InvalidValueError):
        seal(lab, "stock")


# Reference counts


def test_an_image_goes_with_its_last_user(lab: Lab) -> None:
    plain = layer_names(lab)
    lab.start()
    lab.execute("echo one >~/one")
    seal(lab, "snp_1")
    lab.start("dbx_2", image="snp_1")
    lab.execute("echo two >~/two", box="dbx_2")
    seal(lab, "snp_2", "dbx_2")
    lab.run(lab.runtime.remove_image("snp_1"))
    lab.run(lab.runtime.remove_image("snp_1"))
    with pytest.raises(ImageNotFoundError):
        lab.start("dbx_3", image="snp_1")
    # The image made from it keeps it, and so does the sandbox.
    lab.start("dbx_3", image="snp_2")
    assert lab.execute("cat ~/one ~/two", box="dbx_3").stdout == "one\ntwo\n"
    lab.run(lab.runtime.remove_image("snp_2"))
    halt(lab, "dbx_3")
    lab.start("dbx_3", image="snp_2", generation=2)
    assert lab.execute("cat ~/one ~/two", box="dbx_3").stdout == "one\ntwo\n"
    assert len(layer_names(lab)) == len(plain) + 2
    lab.run(lab.runtime.stop("dbx_3"))
    assert len(layer_names(lab)) == len(plain) + 1
    assert lab.execute("cat ~/one ~/two", box="dbx_2").stdout == "one\ntwo\n"
    lab.run(lab.runtime.stop("dbx_2"))
    assert layer_names(lab) == plain


def test_an_image_store_that_somebody_else_writes_to_is_not_waited_for(lab: Lab) -> None:
    plain = layer_names(lab)
    lab.start()
    with lab.images.layers.writing():
        seal(lab, "snp_1")
        lab.run(lab.runtime.remove_image("snp_1"))
        assert lab.run(lab.runtime.find_image_size("snp_1")) is None
    lab.images.collect()
    assert layer_names(lab) == plain


# Many layers


def test_many_layers_become_one_and_mean_the_same(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SEALED_LAYERS_MAX", 3)
    steps = (
        "mkdir ~/d ~/gone; echo 1 >~/d/one; echo 1 >~/gone/x; echo 1 >/opt/file; mkdir /usr/local/t; echo 1 >/usr/local/t/a",
        "rm -r ~/gone; rm ~/d/one; echo 2 >~/d/two; rm -r /usr/share/doc; rm -r /usr/local/t; mkdir /usr/local/t",
        "mkdir ~/gone; echo 3 >~/gone/y; rm /opt/file; mkdir /opt/file; mkdir /usr/share/doc; echo 3 >/usr/share/doc/z",
        "chmod 711 ~/d; rm -r /etc/skel; echo 4 >/etc/skel; setfattr -n user.k -v v ~/gone || true",
        "echo 5 >~/d/five; chown 5:6 /opt/file",
    )
    look = (
        "ls -lAR --time-style=+%s /home /opt /usr/local /usr/share/doc /etc/skel; "
        "cat ~user/d/* ~user/gone/* /usr/share/doc/z; getfattr -d ~user/gone"
    )
    lab.start()
    for number, step in enumerate(steps):
        lab.execute(step, root=True)
        seen = lab.execute(look, root=True).stdout
        seal(lab, f"snp_{number}")
        if number % 2:
            halt(lab)
            seal(lab, f"snp_{number}h")
            lab.start(generation=number + 2)
            assert lab.execute(look, root=True).stdout == seen
            copy = f"snp_{number}h"
        else:
            copy = f"snp_{number}"
        lab.start("dbx_2", image=copy)
        assert lab.execute(look, box="dbx_2", root=True).stdout == seen
        lab.run(lab.runtime.stop("dbx_2"))
    with lab.images.resolve("snp_4") as image:
        assert len(image.layers) <= 4


def test_the_kernel_takes_as_many_layers_as_there_may_be(lab: Lab) -> None:
    lab.start()
    for number in range(snapshots.SEALED_LAYERS_MAX + 1):
        halt(lab)
        (lab.settings.state_dir / f"sandboxes/dbx_1/disk/upper/f{number}").write_text(f"{number}\n")
        seal(lab, f"snp_{number}")
    with lab.images.resolve(f"snp_{snapshots.SEALED_LAYERS_MAX - 1}") as image:
        assert len(image.layers) == snapshots.SEALED_LAYERS_MAX + 1
    with lab.images.resolve(f"snp_{snapshots.SEALED_LAYERS_MAX}") as image:
        assert len(image.layers) == 2
    for box, image_name in (("dbx_2", snapshots.SEALED_LAYERS_MAX - 1), ("dbx_3", snapshots.SEALED_LAYERS_MAX)):
        lab.start(box, image=f"snp_{image_name}")
        assert lab.execute("cat /f0 /f63; ls /f* | wc -l", box=box).stdout == f"0\n63\n{image_name + 1}\n"
    lab.start(generation=2)
    assert lab.execute("cat /f0 /f64; ls /f* | wc -l").stdout == "0\n64\n65\n"


# Crashes


class Killed(BaseException):
    """The daemon dies here."""


@contextmanager
def dying_at(step: int) -> Iterator[None]:
    """The daemon dies before that change of the disk. A dead process removes nothing behind itself."""
    counted = 0

    def dying(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted >= step:
                raise Killed
            return plain(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "replace"), (os, "chown")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        patch.setattr("outgate.runtime.disk.remove_tree", lambda _: None)
        yield


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "halted"])
def test_a_daemon_killed_at_any_step_leaves_the_old_or_the_new(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, *, is_running: bool
) -> None:
    monkeypatch.setattr(snapshots, "SEALED_LAYERS_MAX", 1)
    lab.start()
    lab.execute("echo lowest >~/lowest; mkdir ~/d; echo a >~/d/a; rm -r /etc/skel")
    halt(lab)
    seal(lab, "snp_lowest")
    lab.start(generation=2)
    lab.execute("rm ~/d/a; echo b >~/d/b")
    if not is_running:
        halt(lab)
    for step in range(1, 40):
        try:
            with dying_at(step):
                seal(lab, "snp_1")
        except Killed:
            is_dead = True
        else:
            is_dead = False
        lab.close()
        lab.open()
        if lab.run(lab.runtime.find_image_size("snp_1")) is not None:
            lab.start("dbx_2", image="snp_1")
            assert lab.execute("cat ~/lowest; ls ~/d", box="dbx_2").stdout == "lowest\nb\n"
            lab.run(lab.runtime.stop("dbx_2"))
            lab.run(lab.runtime.remove_image("snp_1"))
        else:
            assert is_dead
        if not is_running:
            lab.start(generation=step + 2)
        assert lab.execute("cat ~/lowest; ls ~/d").stdout == "lowest\nb\n"
        if not is_running:
            halt(lab)
        check_nothing_is_left_over(lab)
        if not is_dead:
            break
    assert 3 < step < 39


def check_nothing_is_left_over(lab: Lab) -> None:
    record = lab.runtime._disks["dbx_1"].read_record()
    assert record is not None
    assert record.sealing == ()
    with lab.images.resolve("snp_lowest") as lowest, lab.images.resolve("stock") as stock:
        assert layer_names(lab) == {path.name for path in (*record.layers, *lowest.layers, *stock.layers)}
    assert not list((lab.settings.state_dir / "trash").iterdir())


def test_a_sandbox_that_a_killed_daemon_left_frozen_goes_on(lab: Lab) -> None:
    lab.start()
    ticking = lab.begin("while :; do date +%N >~/tick; done")
    lab.execute("until [ -s ~/tick ]; do :; done")
    tick = lab.settings.state_dir / "sandboxes/dbx_1/disk/upper/home/user/tick"
    freezing = frozen(LAYOUT, lab.group / "dbx_1")
    freezing.__enter__()
    seen = tick.read_text()
    time.sleep(0.05)
    assert tick.read_text() == seen
    lab.close()
    lab.open()
    deadline = time.monotonic() + WAIT_S
    while tick.read_text() == seen:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lab.run(lab.runtime.exec_kill("dbx_1", ticking))
    # And one that nobody thaws can still be ended.
    frozen(LAYOUT, lab.group / "dbx_1").__enter__()
    lab.run(lab.runtime.stop("dbx_1"))
    assert find_traces(lab) == NO_TRACES


def test_the_copy_dies_with_the_daemon(lab: Lab) -> None:
    script = """
import sys
from pathlib import Path
from threading import Event
from outgate.runtime.snapshots import _Bench
_Bench(Path(sys.argv[1]), Event()).run("sleep", "987")
"""
    place = lab.settings.state_dir / "trash"
    daemon = subprocess.Popen((sys.executable, "-c", script, place))
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    deadline = time.monotonic() + WAIT_S
    while not (child := children.read_text().strip()) or b"sleep" not in Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    descriptor = os.pidfd_open(int(child))
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    assert asyncio.run(wait_readable(descriptor))
    os.close(descriptor)
    for leftover in ("output", "complaints"):
        (place / leftover).unlink()


async def wait_readable(descriptor: int) -> bool:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await asyncio.wait_for(ended.wait(), WAIT_S)
    asyncio.get_running_loop().remove_reader(descriptor)
    return True


def test_layers_are_named_as_they_are_found(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    for name in ("sha256:" + "0" * 64, make_sealed_name()):
        assert store.layers.name_of(store.layers.path(name)) == name
