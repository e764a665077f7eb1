"""What whoever starts a program in a devbox leaves open in it: /bin/sh is the box's own and may look."""

import asyncio
import json
import shlex
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.boundary.conftest import put_program
from outgate.model.terminals import TerminalSize
from outgate.runtime.base import TerminalSpec
from support.sandbox_lab import Lab, open_lab

pytestmark = pytest.mark.kernel

PROGRAM = "recording_sh.py"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A sandbox whose /bin/sh notes what it finds open."""
    with open_lab(tmp_path_factory.mktemp("watched")) as lab:
        lab.start()
        put_program(lab, PROGRAM)
        lab.execute(f"cp -L /bin/sh /usr/bin/real-sh && install -m 755 /tmp/{PROGRAM} /usr/bin/dash", root=True)
        yield lab


def notes(lab: Lab) -> list[dict[str, Any]]:
    """What was noted since the last time."""
    found = []
    for note in (lab.settings.state_dir / "sandboxes/dbx_1/disk/upper/var/tmp").glob("seen-*"):
        found.append(json.loads(note.read_text()))
        note.unlink()
    return [note for note in found if note["argv"][1:2] == ["-c"]]


def assert_nothing_of_the_host(found: list[dict[str, Any]], least: int) -> None:
    assert len(found) >= least
    for note in found:
        assert note["cwd"] == "/"
        for number, (kind, target) in note["open"].items():
            is_own = stat.S_ISFIFO(kind) or target == "/dev/null" or target.startswith("/dev/pts/")
            assert is_own, (number, target, note)
            assert int(number) <= 3


def test_an_execution_gets_pipes_and_the_null_device(watched: Lab) -> None:
    """Its status used to go to a file of the host's, which the box could fill."""
    assert watched.execute("exit 3").exit_status == 3
    assert watched.execute("id -u", root=True).stdout == "0\n"
    assert_nothing_of_the_host(notes(watched), 2)


def test_terminals_get_pipes_or_their_own_terminal(watched: Lab) -> None:
    for size in (None, TerminalSize(80, 24)):
        opened = watched.run(watched.runtime.open_terminal("dbx_1", TerminalSpec("true", {}, size)))
        watched.run(await_status(opened.status))
        assert opened.read_status() == 0
        opened.close()
    assert_nothing_of_the_host(notes(watched), 2)


async def await_status(descriptor: int) -> None:
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(30):
            await readable.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)


def test_what_moves_files_gets_pipes(watched: Lab) -> None:
    async def data() -> AsyncIterator[bytes]:
        yield b"hello"

    async def move() -> bytes:
        await watched.runtime.write_file("dbx_1", "/tmp/moved", data())
        async with watched.runtime.read_file("dbx_1", "/tmp/moved") as pieces:
            return b"".join([piece async for piece in pieces])

    assert watched.run(move()) == b"hello"
    assert_nothing_of_the_host(notes(watched), 2)


def test_the_first_process_gets_pipes_that_end_with_its_start(watched: Lab) -> None:
    """What it says at its start went to a file of the host's, and stayed open as long as it lived."""
    watched.run(watched.runtime.halt("dbx_1"))
    notes(watched)
    watched.start(generation=2)
    assert_nothing_of_the_host(notes(watched), 1)
    assert watched.execute("ls -l /proc/1/fd | grep -c -v -e null -e total", root=True).stdout == "0\n"


def test_a_shell_that_floods_its_status_says_nothing_and_fills_nothing(tmp_path: Path) -> None:
    flood = "#!/usr/bin/real-sh\ntrap '' PIPE\nhead -c 50000000 /dev/zero >&3 2>/dev/null\nexit 0\n"
    with open_lab(tmp_path / "state") as lab:
        lab.start()
        plant = f"printf %s {shlex.quote(flood)} >/tmp/flood && install -m 755 /tmp/flood /usr/bin/dash"
        assert lab.execute(f"cp -L /bin/sh /usr/bin/real-sh && {plant}", root=True).exit_status == 0
        execution = lab.begin("true")
        assert lab.wait(execution).exit_status == 137
        status = lab.settings.state_dir / "sandboxes/dbx_1/exec" / execution / "status"
        assert status.stat().st_size == 8, "the control: the flood came"
