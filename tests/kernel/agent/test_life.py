"""Suspending, resuming and mounts, with the kernel, the gate and the runtime as they are."""

import asyncio
import contextlib
import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.model.desired import (
    CodeMountDocument,
    FileMountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from support.agent_rig import HOST_ADDRESS, OTHER_ADDRESS, AgentRig, open_agent_rig
from support.agent_world import make_devbox, make_document

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

FETCH = "curl -sS --max-time 8 -o /dev/null -w '%{http_code}' http://allowed.example:8080/"
GIT_ADDRESS = "45.45.52.1"


def with_rig(scenario: Callable[[AgentRig], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_agent_rig() as rig:
            rig.start()
            await scenario(rig)

    asyncio.run(run())


def in_router(rig: AgentRig, *arguments: str) -> str:
    """What a command prints in the router namespace."""
    namespace = f"outgate-{rig.settings.instance_id}"
    done = subprocess.run(
        ("nsenter", f"--net=/run/netns/{namespace}", *arguments), capture_output=True, text=True, check=True
    )
    return done.stdout


def groups_of(devbox_id: str) -> list[Path]:
    """Control groups of the devbox, in any hierarchy."""
    return [path for path in Path("/sys/fs/cgroup").glob(f"**/{devbox_id}") if path.is_dir()]


def test_what_stays_and_what_goes_when_a_devbox_is_suspended() -> None:
    name = f"dbx_s{os.getpid()}"

    async def scenario(rig: AgentRig) -> None:
        narrow = make_document(hosts=("allowed.example",), cidrs=(f"{OTHER_ADDRESS}/32",))
        devbox = make_devbox(
            name,
            launch_commands=("echo booted >>~/boots", f"{FETCH} >>~/fetched 2>&1; true"),
            suspend_commands=("echo bye >~/bye; kill -0 $(cat /tmp/pid) && echo alive >>~/bye", "exit 3"),
        )
        rig.api.put(narrow, devbox)
        await rig.until_phase(name, "running")
        echo = (
            "import socket,time; "
            f"s=socket.create_connection(('{OTHER_ADDRESS}', 7), 5); open('/tmp/up', 'w'); time.sleep(300)"
        )
        await rig.run(name, f'echo kept >/tmp/kept; sleep 300 & echo $! >/tmp/pid; python3 -c "{echo}" &')
        await rig.run(name, "until test -e /tmp/up; do sleep 0.05; done")
        assert (await rig.run(name, FETCH)).stdout == "200"
        assert OTHER_ADDRESS in in_router(rig, "conntrack", "-L")
        before = rig.internet.now_s()

        rig.api.suspend(name)
        await rig.until_phase(name, "suspended")
        assert rig.namespaces() == {f"outgate-{rig.settings.instance_id}"}
        assert groups_of(name) == []
        assert OTHER_ADDRESS not in in_router(rig, "conntrack", "-L")
        assert HOST_ADDRESS not in in_router(rig, "nft", "list", "table", "inet", "outgate")
        refused = await rig.gateway.read_activity(f"unix:{rig.settings.agent_socket}", name)
        assert refused is not None
        assert refused.running == 0

        # What it may reach now is decided while it sleeps, and holds for the first packet of its launch commands.
        rig.api.put(make_document(revision=2, hosts=("other.example",)))
        rig.api.resume(name)
        await rig.until(lambda: rig.api.observed[name].generation == 2)
        await rig.until_phase(name, "running")
        said = await rig.run(name, "cat /tmp/kept ~/boots ~/bye; cat ~/fetched; ls /proc | grep -c '^[0-9]'")
        lines = said.stdout.splitlines()
        assert lines[:5] == ["kept", "booted", "booted", "bye", "alive"]
        assert lines[5].startswith("200")
        assert "Could not resolve host" in said.stdout
        assert rig.internet.journal(since_s=before, address=HOST_ADDRESS).connections == []
        assert (
            await rig.run(name, "curl -sS --max-time 8 -o /dev/null -w '%{http_code}' http://other.example/")
        ).stdout == "200"
        assert (await rig.run(name, "kill -0 $(cat /tmp/pid)")).exit_status != 0

        rig.api.suspend(name)
        await rig.until_phase(name, "suspended")
        rig.api.shut_down(name)
        await rig.until_phase(name, "shutdown")
        assert not list((rig.settings.runtime_dir / "sandboxes").iterdir())

    with_rig(scenario)


def test_an_agent_that_is_killed_leaves_a_suspended_devbox_as_it_is() -> None:
    name = f"dbx_k{os.getpid()}"

    async def scenario(rig: AgentRig) -> None:
        rig.api.put(make_document(), make_devbox(name))
        await rig.until_phase(name, "running")
        await rig.run(name, "echo kept >/tmp/kept")
        rig.api.suspend(name)
        await rig.until(lambda: rig.api.observed[name].phase.value in ("suspending", "suspended"))
        rig.kill()
        reports = len(rig.api.reports)
        rig.start()
        await rig.until(lambda: len(rig.api.reports) > reports)
        await rig.until_phase(name, "suspended")
        rig.api.resume(name)
        await rig.until(lambda: rig.api.observed[name].generation == 2)
        await rig.until_phase(name, "running")
        assert (await rig.run(name, "cat /tmp/kept")).stdout == "kept\n"

    with_rig(scenario)


def test_why_a_devbox_failed() -> None:
    async def fail(rig: AgentRig, name: str, **more: Any) -> tuple[str | None, str]:
        rig.api.put(make_document(), make_devbox(name, memory_mib=64, **more))
        await rig.until(
            lambda: name in rig.api.observed and rig.api.observed[name].phase.value in ("failure", "shutdown")
        )
        seen = rig.api.observed[name]
        return seen.failure_reason or seen.shutdown_reason, seen.detail

    async def scenario(rig: AgentRig) -> None:
        eat = 'python3 -c "x = bytearray(1 << 30)"'
        reason, detail = await fail(rig, "dbx_oom", launch_commands=(eat,))
        assert reason == "out_of_memory"
        assert "ended with status 137" in detail
        assert (await fail(rig, "dbx_oom2", entrypoint=f"exec {eat}"))[0] == "out_of_memory"
        assert (await fail(rig, "dbx_kill", entrypoint="kill -KILL $$"))[0] == "entrypoint_exit"
        reason, detail = await fail(rig, "dbx_bad", launch_commands=("true", "echo why >&2; exit 7"))
        assert reason == "execution_failed"
        assert detail == "Launch command 'echo why >&2; exit 7' ended with status 7. why"

    with_rig(scenario)


def tgz(entries: dict[str, bytes], *links: tuple[str, str]) -> bytes:
    """An archive with these files and symbolic links."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for target, source in links:
            link = tarfile.TarInfo(target)
            link.type, link.linkname = tarfile.SYMTYPE, source
            archive.addfile(link)
        for path, content in entries.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.uid, entry.mode = len(content), 0, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


@contextlib.contextmanager
def git_host(rig: AgentRig, folder: Path) -> Iterator[None]:
    """``http://git.example/o/r.git``: a repository with a branch ``dev`` beside its default one."""
    work, bare = folder / "work", folder / "www" / "o" / "r.git"
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")

    def git(*arguments: str, at: Path = work) -> None:
        subprocess.run(("git", *identity, *arguments), cwd=at, check=True, capture_output=True)

    work.mkdir()
    git("init")
    for branch in ("main", "dev"):
        git("checkout", "-q", "-B", branch)
        (work / "which").write_text(branch)
        git("add", "which")
        git("commit", "-q", "-m", branch)
    git("checkout", "-q", "main")
    subprocess.run(("git", "clone", "-q", "--bare", str(work), str(bare)), check=True, capture_output=True)
    git("update-server-info", at=bare)
    rig.internet.add_host("git.example", addresses=(GIT_ADDRESS,), services=())
    server = subprocess.Popen(
        ("nsenter", f"--net={rig.internet.namespaces.internet_path}", sys.executable, "-m", "http.server", "80",
         "--bind", GIT_ADDRESS, "--directory", str(folder / "www")),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        server.kill()
        server.wait()


def test_mounts(tmp_path: Path) -> None:
    async def scenario(rig: AgentRig) -> None:
        # An archive that leads out of its directory by a link, as far as its maker could tell: to the host's /etc.
        rig.api.objects["obj_tgz"] = tgz({"dir/a.txt": b"from the archive", "out/evil": b"x"}, ("out", "/etc"))
        rig.api.objects["obj_gz"] = gzip.compress(b"unzipped")
        rig.api.objects["obj_big"] = os.urandom(3_000_000)
        mounts = (
            FileMountDocument("notes/a b.txt", "hello\nwörld"),
            FileMountDocument("/etc/app/app.conf", "key = value"),
            ObjectMountDocument("obj_tgz", "/opt/data", ObjectForm.TGZ),
            ObjectMountDocument("obj_gz", "plain.txt", ObjectForm.GZIP),
            ObjectMountDocument("obj_big", "big.bin", ObjectForm.FILE),
            CodeMountDocument(
                "http://git.example/o/r.git", "r", ref="dev", token="t0ken", install_command="cat which >installed"
            ),
        )
        rig.api.put(
            make_document(hosts=("git.example",)),
            make_devbox("dbx_m", mounts=mounts, launch_commands=("test -f r/which",)),
        )
        await rig.until_phase("dbx_m", "failure")  # tar refuses to write through the link into a directory of root's
        assert "The mount of object obj_tgz at /opt/data ended with status 2" in rig.api.observed["dbx_m"].detail

        rig.api.objects["obj_tgz"] = tgz({"dir/a.txt": b"from the archive"})
        rig.api.put(make_devbox("dbx_n", mounts=mounts, launch_commands=("test -f r/which",)))
        await rig.until_phase("dbx_n", "running")
        said = await rig.run(
            "dbx_n",
            "cat 'notes/a b.txt' /etc/app/app.conf /opt/data/dir/a.txt plain.txt r/installed;"
            " wc -c <big.bin; stat -c %U notes 'notes/a b.txt' /etc/app /opt/data /opt/data/dir/a.txt big.bin;"
            " grep -rc t0ken r/.git/config; git -C r rev-parse --abbrev-ref HEAD",
        )
        assert said.stdout.replace("\n", " ").split() == [
            *("hello", "wörldkey", "=", "valuefrom", "the", "archiveunzippeddev3000000"),
            *("user",) * 6, "0", "dev",
        ]  # fmt: skip

        # The clone is the devbox's own doing: a policy that does not allow the host does not allow the clone.
        rig.api.put(
            make_document("npol_2", hosts=("allowed.example",)), make_devbox("dbx_o", "npol_2", mounts=mounts[-1:])
        )
        await rig.until_phase("dbx_o", "failure")
        assert "The clone of http://git.example/o/r.git ended with status 128" in rig.api.observed["dbx_o"].detail
        assert "Could not resolve host: git.example" in rig.api.observed["dbx_o"].detail

    def run_with_git(rig: AgentRig) -> Awaitable[None]:
        async def run() -> None:
            with git_host(rig, tmp_path):
                await scenario(rig)

        return run()

    with_rig(run_with_git)
    assert not Path("/etc/evil").exists()
