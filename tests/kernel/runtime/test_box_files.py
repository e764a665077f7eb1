"""Files in a sandbox: whole in both directions, as its user, and whatever a hostile box puts in the way stays in the box."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.errors import InvalidValueError
from outgate.model.executions import FileProblem
from outgate.runtime.base import ROOT, BoxFileError, SandboxNotFoundError, SandboxUser
from outgate.runtime.box_files import BoxFiles
from support.sandbox_lab import WAIT_S, Lab

pytestmark = pytest.mark.kernel

KIB, MIB = 1 << 10, 1 << 20
SECRET = "what only the host has"  # noqa: S105 - a text to look for


async def pieces_of(data: bytes, size: int = 64 * KIB) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read(lab: Lab, path: str, user: SandboxUser | None = None) -> bytes:
    async def scenario() -> bytes:
        async with asyncio.timeout(WAIT_S), lab.runtime.read_file("dbx_1", path, user) as pieces:
            return b"".join([piece async for piece in pieces])

    return lab.run(scenario())


def write(lab: Lab, path: str, data: bytes, user: SandboxUser | None = None) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await lab.runtime.write_file("dbx_1", path, pieces_of(data), user)

    lab.run(scenario())


def problem_of(work: object, *arguments: object) -> FileProblem:
    with pytest.raises(BoxFileError) as caught:
        work(*arguments)  # type: ignore[operator] # read or write
    assert caught.value.message
    return caught.value.problem


def test_bytes_come_back_as_they_were_and_belong_to_the_user(shared: Lab) -> None:
    data = bytes(range(256)) * 1000
    write(shared, "some dir/-n $(id) 'ü'.bin", data)
    assert read(shared, "/home/user/some dir/-n $(id) 'ü'.bin") == data
    write(shared, "-n", b"dash")
    assert read(shared, "-n") == b"dash"
    write(shared, "empty", b"")
    assert read(shared, "empty") == b""
    shown = shared.execute("stat -c '%U %G %a' ~/some\\ dir ~/some\\ dir/* ~/empty")
    assert shown.stdout == "user user 755\nuser user 644\nuser user 644\n"


def test_relative_means_the_home_of_whoever_it_is(shared: Lab) -> None:
    write(shared, "of-root", b"mine", ROOT)
    assert shared.execute("stat -c '%U %a' /root/of-root; cat /root/of-root", root=True).stdout == "root 644\nmine"
    assert problem_of(read, shared, "/root/of-root") is FileProblem.DENIED


def test_a_file_that_is_there_keeps_its_mode_owner_and_links(shared: Lab) -> None:
    shared.execute("echo old >~/kept; chmod 750 ~/kept; ln ~/kept ~/hard; ln -s kept ~/soft")
    write(shared, "soft", b"new")
    shown = shared.execute("stat -c '%a %h' ~/kept; cat ~/hard; test -L ~/soft && echo still a link")
    assert shown.stdout == "750 2\nnewstill a link\n"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("absent", FileProblem.MISSING),
        ("no/such/dir/file", FileProblem.MISSING),
        ("/etc/passwd/x", FileProblem.MISSING),
        ("dangling", FileProblem.MISSING),
        ("loop", FileProblem.MISSING),
        (".", FileProblem.DIRECTORY),
        ("/", FileProblem.DIRECTORY),
        ("fifo", FileProblem.SPECIAL),
        ("socket", FileProblem.SPECIAL),
        ("/dev/null", FileProblem.SPECIAL),
        ("/dev/zero", FileProblem.SPECIAL),
        ("/dev/stdin", FileProblem.SPECIAL),
        ("closed", FileProblem.DENIED),
        ("closed-dir/file", FileProblem.DENIED),
        ("/etc/shadow", FileProblem.MISSING),
    ],
)
def test_what_cannot_be_read_says_why_and_hangs_nobody(shared: Lab, path: str, problem: FileProblem) -> None:
    shared.execute(
        "cd; mkfifo fifo; ln -sfn nowhere dangling; ln -sfn loop loop; echo x >closed; chmod 0 closed;"
        "mkdir -p closed-dir; echo x >closed-dir/file; chmod 0 closed-dir;"
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'"
    )
    shared.execute("rm -f /etc/shadow", root=True)
    assert problem_of(read, shared, path) is problem


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/home/user", FileProblem.DIRECTORY),
        ("/dev/null", FileProblem.SPECIAL),
        ("/dev/shm", FileProblem.DIRECTORY),
        ("/etc/made-here", FileProblem.DENIED),
        ("/usr/deep/down/file", FileProblem.DENIED),
        ("/etc/passwd", FileProblem.DENIED),
        ("/proc/sys/kernel/core_pattern", FileProblem.DENIED),
        ("/proc/made", FileProblem.MISSING),
        ("/sys/fs/cgroup/cgroup.procs", FileProblem.DENIED),
        ("x" * 300, FileProblem.FAILED),
    ],
)
def test_what_cannot_be_written_says_why(shared: Lab, path: str, problem: FileProblem) -> None:
    assert problem_of(write, shared, path, b"data") is problem


def test_a_full_disk_is_told_and_leaves_no_half_of_a_new_file(shared: Lab) -> None:
    assert problem_of(write, shared, "/dev/shm/too-much", b"x" * (80 * MIB)) is FileProblem.FULL
    assert shared.execute("ls /dev/shm | grep -c too-much").stdout == "0\n"


def test_an_upload_that_breaks_off_leaves_no_new_file(shared: Lab) -> None:
    shared.execute("echo long before >~/there")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise ConnectionResetError

    for path in ("fresh-dir/half", "there"):
        with pytest.raises(ConnectionResetError):
            shared.run(shared.runtime.write_file("dbx_1", path, broken()))
    assert shared.execute("ls ~/fresh-dir; test -e ~/there && echo there").stdout == "there\n"


def test_links_dots_and_magic_lead_to_the_boxs_own_root_alone(lab: Lab, tmp_path: Path) -> None:
    """What each of these names on the host must not be what is read or written."""
    host_file = tmp_path / "host-file"
    host_file.write_text(SECRET)
    host_file.chmod(0o666)
    tmp_path.chmod(0o777)
    lab.start()
    here = os.getpid()
    lab.execute(
        f"cd; ln -s {host_file} abs; ln -s ../../../../../../../..{host_file} dots; ln -s /proc/self/root magic"
    )
    lab.execute(
        "cd; ln -s /proc/1/root init; ln -s /proc/self/cwd cwd; ln -s /proc/self/fd/3 fd3; ln -s /proc/self/exe exe"
    )
    init = lab.run(lab.runtime.observe())["dbx_1"].pid
    attempts = [
        str(host_file),
        f"../../../../../../..{host_file}",
        "abs",
        "dots",
        f"magic{host_file}",
        f"init{host_file}",
        f"cwd/..{host_file}",
        f"/proc/{here}/root{host_file}",
        f"/proc/{init}/root{host_file}",
        f"/proc/{here}/cwd",
        f"/proc/{here}/environ",
        *(f"/proc/self/fd/{number}{host_file}" for number in range(3, 6)),
        *(f"/proc/self/fd/{number}/../../../../..{host_file}" for number in range(3, 6)),
        *(f"/proc/1/fd/{number}" for number in range(3, 6)),
    ]
    for user in (None, ROOT):
        for path in attempts:
            try:
                found = read(lab, path, user)
            except BoxFileError:
                continue
            assert SECRET.encode() not in found, path
            assert b"PATH=" not in found, path
    for user in (None, ROOT):
        for path in attempts[:8]:
            try:
                write(lab, path, b"owned by the box", user)
            except BoxFileError:
                continue
    assert host_file.read_text() == SECRET
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["host-file", "state"]


def test_a_file_that_is_swapped_for_a_link_or_a_fifo_meanwhile_harms_nobody(shared: Lab, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(SECRET)
    target.chmod(0o666)
    swapping = shared.begin(
        f"cd /tmp; mkfifo pipe; while :; do ln -sfn {target} flip; ln -sfn /etc/hostname flip; ln -sfn pipe flip; done"
    )
    shared.runtime._files = _impatient(shared)
    try:
        outcomes: set[bytes | FileProblem] = set()
        for _ in range(15):
            try:
                outcomes.add(read(shared, "/tmp/flip"))
            except BoxFileError as error:
                outcomes.add(error.problem)
            try:
                write(shared, "/tmp/flip", b"owned")
            except BoxFileError as error:
                outcomes.add(error.problem)
    finally:
        shared.run(shared.runtime.exec_kill("dbx_1", swapping))
    assert SECRET.encode() not in outcomes
    assert target.read_text() == SECRET
    assert len(outcomes) > 1


def _impatient(lab: Lab) -> BoxFiles:
    return replace(lab.runtime._files, stall_s=0.5)


def test_programs_of_the_box_that_lie_or_hang_are_bounded(lab: Lab) -> None:
    lab.start()
    lab.runtime._files = _impatient(lab)
    write(lab, "real", b"real content")

    def replace_program(name: str, script: str) -> None:
        done = lab.execute(
            f"rm -f /usr/local/bin/{name}; printf '%s' '{script}' >/usr/local/bin/{name}; chmod 755 /usr/local/bin/{name}",
            root=True,
        )
        assert done.exit_status == 0, done

    replace_program("cat", "#!/bin/sh\nsleep 1000")
    began = time.monotonic()
    assert problem_of(read, lab, "real") is FileProblem.STALLED
    assert problem_of(write, lab, "other", b"x" * MIB) is FileProblem.STALLED
    assert time.monotonic() - began < 60
    replace_program("cat", "#!/bin/sh\nexit 3")
    assert problem_of(read, lab, "real") is FileProblem.FAILED
    replace_program("cat", "#!/bin/sh\nkill -9 -1")
    assert problem_of(read, lab, "real") is FileProblem.FAILED
    # One that says ready and never ends: whoever reads takes what he wants and goes.
    replace_program("cat", "#!/bin/sh\nexec yes")

    async def take_some() -> int:
        size = 0
        async with lab.runtime.read_file("dbx_1", "real") as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > MIB:
                    break
        return size

    assert lab.run(take_some()) > MIB
    # A complaint of any length and kind becomes one short printable line.
    replace_program(
        "cat", '#!/bin/sh\nhead -c 3000 /dev/zero | tr "\\\\0" x >&2; printf ": \\\\033[31mred\\\\n" >&2; exit 1'
    )
    with pytest.raises(BoxFileError) as caught:
        read(lab, "real")
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()
    assert lab.execute("pgrep -x yes").stdout == ""


def test_big_files_stream_and_none_of_them_stays_in_memory(shared: Lab) -> None:
    shared.execute("true")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block = b"0123456789abcdef" * 4096

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield block

    async def read_back() -> int:
        size = 0
        async with shared.runtime.read_file("dbx_1", "big") as pieces:
            async for piece in pieces:
                size += len(piece)
        return size

    shared.run(shared.runtime.write_file("dbx_1", "big", blocks()))
    assert shared.run(read_back()) == 100 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * KIB
    shared.execute("rm ~/big")


def test_nothing_is_left_of_a_transfer(shared: Lab) -> None:
    write(shared, "x", b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read(shared, "x")
        problem_of(read, shared, "absent")
        write(shared, "x", b"x")
        problem_of(write, shared, "/etc/x", b"x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list((shared.settings.run_dir / "transfers").iterdir()) == []
    assert "helper" not in shared.execute("ps -eo args").stdout


def test_sandboxes_and_paths_that_are_none(shared: Lab) -> None:
    for path in ("", "a\0b", "x" * 4096):
        with pytest.raises(InvalidValueError):
            read(shared, path)

    async def elsewhere() -> None:
        async with shared.runtime.read_file("dbx_9", "x"):
            pass

    with pytest.raises(SandboxNotFoundError):
        shared.run(elsewhere())
