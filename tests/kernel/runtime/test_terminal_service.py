"""The api's SSH server and the agent's terminals, with real sandboxes between: what only a real one can show."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from outgate.runtime.oci import OciRuntime
from support.sandbox_lab import Lab
from support.ssh_client import run_ssh, ssh_options
from support.terminal_world import TerminalWorld, open_terminal_world

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="openssh-client is not installed"),
]
WAIT_S = 15.0


@pytest.fixture(scope="module")
def world(shared: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TerminalWorld]:
    """The world's own runtime finds the lab's sandboxes, as an agent does that was started again."""
    with open_terminal_world(tmp_path_factory.mktemp("world"), OciRuntime(shared.settings)) as made:
        yield made


@pytest.fixture(scope="module")
def devbox_id(shared: Lab, world: TerminalWorld) -> str:
    made = world.devbox()
    shared.start(made)
    return made


def test_hung_up_programs_are_gone_and_background_ones_are_not(
    shared: Lab, world: TerminalWorld, devbox_id: str
) -> None:
    key = world.ssh_key(devbox_id)
    # It says "up" when it has left the session: before that, the hang-up is for it too.
    words = "setsid sh -c 'echo up; exec sleep 871 >/dev/null 2>&1' & exec sleep 872"

    async def leave_in_the_middle() -> None:
        async with asyncssh.connect(
            key.host, key.port, username="user", client_keys=[str(key.file)], known_hosts=None, config=None
        ) as client:
            program = await client.create_process(words)
            assert await program.stdout.readline() == "up\n"

    asyncio.run(leave_in_the_middle())
    look, left = "ps -eo args | grep '^sleep 87[12]'", "sleep 871\n"
    deadline_s = time.monotonic() + WAIT_S
    while (seen := shared.execute(look, box=devbox_id).stdout) != left and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert seen == left


def test_files_are_looked_up_in_the_devbox_alone(
    shared: Lab, world: TerminalWorld, devbox_id: str, tmp_path: Path
) -> None:
    key = world.ssh_key(devbox_id)
    secret = tmp_path / "of-the-host"
    secret.write_text("secret")
    shared.execute(
        f"mkdir -p ~/links && ln -s {secret} ~/links/out && ln -s ../../../../../.. ~/links/up", box=devbox_id
    )

    async def look() -> None:
        async with (
            asyncssh.connect(
                key.host, key.port, username="user", client_keys=[str(key.file)], known_hosts=None, config=None
            ) as client,
            client.start_sftp_client() as files,
        ):
            assert await files.realpath(".") == "/home/user"
            for path in (str(secret), "links/out", f"links/up{secret}", "../../../../../../.." + str(secret)):
                with pytest.raises(asyncssh.SFTPNoSuchFile):
                    await files.open(path)
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await files.listdir("/root")
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await files.mkdir("/usr/share/mine")
            async with files.open("mine", "wb") as file:
                await file.write(b"kept")

    asyncio.run(look())
    assert shared.execute("stat -c %U ~/mine; cat ~/mine", box=devbox_id).stdout == "user\nkept"


def test_an_image_without_python_says_what_is_missing(shared: Lab, world: TerminalWorld, devbox_id: str) -> None:
    key = world.ssh_key(devbox_id)
    hidden = shared.execute("mkdir -p ~/bare && printf 'PATH=$HOME/bare\\n' >~/.profile", box=devbox_id)
    assert hidden.exit_status == 0
    try:
        words = ["sftp", *ssh_options(key), "-P", str(key.port), "-b", "-", f"{key.username}@{key.host}"]
        done = subprocess.run(words, input=b"", capture_output=True, timeout=WAIT_S, check=False)
        assert done.returncode != 0
        assert b"neither sftp-server nor python3" in done.stderr
    finally:
        shared.execute("/bin/rm ~/.profile", box=devbox_id)


def test_many_programs_at_once_lose_nothing(world: TerminalWorld, devbox_id: str) -> None:
    key = world.ssh_key(devbox_id)

    async def run_many() -> None:
        async with asyncssh.connect(
            key.host, key.port, username="user", client_keys=[str(key.file)], known_hosts=None, config=None
        ) as client:
            runs = [client.run(f"seq {number} {number + 20_000}", check=True) for number in range(8)]
            for number, done in enumerate(await asyncio.gather(*runs)):
                assert done.stdout == "".join(f"{line}\n" for line in range(number, number + 20_001))

    asyncio.run(run_many())


def test_nothing_stays_open_afterwards(shared: Lab, world: TerminalWorld, devbox_id: str) -> None:
    key = world.ssh_key(devbox_id)
    run_ssh(key, "true")
    before = _open_descriptors()
    for options in ((), ("-tt",)):
        for _ in range(3):
            assert run_ssh(key, "true", options=options).returncode == 0
    deadline = 200
    while _open_descriptors() > before and deadline:
        deadline -= 1
        shared.execute("true", box=devbox_id)
    assert _open_descriptors() <= before


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
