"""Terminals on this machine instead of in devboxes, for tests that need no root; and a dial service to go with them."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import termios
from pathlib import Path, PurePosixPath

import msgspec

from outgate.model.tunnels import DialAnswer, DialRequest, DialStatus
from outgate.runtime.base import SandboxNotFoundError, TerminalSpec
from outgate.runtime.proc import ProcessRef, find_process, session_members
from outgate.runtime.terminals import Terminal
from support.signals import become_default

# As in a devbox, but with this machine's shell and a quiet one.
_SCRIPT = """\
trap : HUP INT QUIT TERM
if [ "$2" = login ]; then bash --norc --noprofile 3>&-; else bash -c "$1" 3>&-; fi
echo $? >&3
"""


class LocalRuntime:
    """The part of a runtime that terminals need. ``home`` is where programs begin; ``stopped`` devboxes have none."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stopped: set[str] = set()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.specs: list[TerminalSpec] = []

    async def open_terminal(self, devbox_id: str, spec: TerminalSpec) -> Terminal:
        await asyncio.sleep(0)
        if devbox_id in self.stopped:
            raise SandboxNotFoundError(f"Devbox {devbox_id} is not running on this host.")
        self.specs.append(spec)
        reading, writing = os.pipe()
        far: tuple[int, ...]
        if spec.size is None:
            pipes = [os.pipe() for _ in range(3)]
            near = (pipes[0][0], pipes[1][1], pipes[2][1])
            far = (pipes[0][1], pipes[1][0], pipes[2][0])
        else:
            master, slave = os.openpty()
            termios.tcsetwinsize(master, (spec.size.rows, spec.size.cols))
            near = (slave, slave, slave)
            far = (master,)
        process = self._spawn(spec, near, writing)
        for descriptor in {*near, writing}:
            os.close(descriptor)
        self.running[process.pid] = process
        leader = find_process(process.pid) or ProcessRef(process.pid, 0)
        return Terminal(leader, PurePosixPath("/"), (), reading, far)

    def _spawn(self, spec: TerminalSpec, near: tuple[int, int, int], writing: int) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PS1": "$ ", **spec.environment}

        def prepare() -> None:
            become_default()  # as the runtime does: these tests may run in the background of a script
            os.dup2(writing, 3)
            if spec.size is not None:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        return subprocess.Popen(
            ("sh", "-c", _SCRIPT, "terminal", spec.command or "", "login" if spec.command is None else "command"),
            stdin=near[0],
            stdout=near[1],
            stderr=near[2],
            env=environment,
            cwd=self.home,
            start_new_session=True,
            pass_fds=(3,) if writing == 3 else (3, writing),
            preexec_fn=prepare,  # noqa: PLW1509 - a terminal of its own cannot be had otherwise
        )

    async def signal_terminal(self, terminal: Terminal, number: int) -> bool:
        await asyncio.sleep(0)
        group = terminal.foreground()
        if group is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
            return True
        return False

    async def hang_up_terminal(self, terminal: Terminal) -> None:
        terminal.close()
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(terminal.leader.pid, number)
            await asyncio.sleep(0.05)

    def end_box(self) -> None:
        """As when the devbox ends: every program is killed.

        A shell that just began has left its leader's process group and does not yet own the terminal, so neither the
        group's signal nor the hang-up reaches it: the whole session is meant.
        """
        for process in self.running.values():
            if process.poll() is None:
                _kill_session(process.pid)

    def close(self) -> None:
        self.end_box()
        for process in self.running.values():
            process.wait(10)


def _kill_session(leader: int) -> None:
    killed: set[int] = set()
    while fresh := session_members(leader, _every_process()).keys() - killed:
        for member in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        killed |= fresh


def _every_process() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


class LocalDials:
    """A dial service that connects to ports of this machine."""

    def __init__(self) -> None:
        self.asked: list[DialRequest] = []

    async def serve(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(bound)
            with peer:
                request = msgspec.json.decode(await loop.sock_recv(peer, 512), type=DialRequest)
                self.asked.append(request)
                try:
                    opened = socket.create_connection(("127.0.0.1", request.port), 2)
                except OSError as error:
                    peer.send(msgspec.json.encode(DialAnswer(DialStatus.REFUSED, str(error))))
                    continue
                with opened:
                    socket.send_fds(peer, [msgspec.json.encode(DialAnswer(DialStatus.CONNECTED))], [opened.fileno()])
