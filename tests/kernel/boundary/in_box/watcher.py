"""Lies in wait for processes of the OCI runtime that enter the sandbox, and tries to take hold of them.

Writes one line of JSON for each to /tmp/watched: which ways were open. The first line is about a process of the
sandbox's own. Ends when /tmp/watched-enough is there.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE = 0x4206
_PIDFD_GETFD = 438


def main() -> None:
    known: set[int] = set()
    with open("/tmp/watched", "a", buffering=1) as report:
        with subprocess.Popen(("sleep", "60")) as own:
            report.write(json.dumps(try_all(own.pid)) + "\n")
            own.kill()
        while not os.path.exists("/tmp/watched-enough"):
            for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
                if pid not in known and is_entering(pid):
                    opened = try_all(pid)
                    # Said only if it was still the runtime afterwards: a program of the sandbox's own may be opened.
                    if is_entering(pid):
                        report.write(json.dumps(opened) + "\n")
                    known.add(pid)


def is_entering(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().startswith("runc")
    return False


def try_all(pid: int) -> list[str]:
    ways: dict[str, Callable[[], object]] = {
        "exe": lambda: os.readlink(f"/proc/{pid}/exe"),
        "exe-read": lambda: os.open(f"/proc/{pid}/exe", os.O_RDONLY),
        "exe-write": lambda: os.open(f"/proc/{pid}/exe", os.O_WRONLY),
        "fd": lambda: os.listdir(f"/proc/{pid}/fd"),
        "root": lambda: os.listdir(f"/proc/{pid}/root/"),
        "cwd": lambda: os.listdir(f"/proc/{pid}/cwd/"),
        "mem": lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR),
        "environ": lambda: open(f"/proc/{pid}/environ").read(),
        "maps": lambda: read_some(f"/proc/{pid}/maps"),
        "namespaces": lambda: os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY),
        "descriptor": lambda: take_descriptor(pid),
        "ptrace": lambda: checked(_LIBC.ptrace(_PTRACE_SEIZE, pid, 0, 0)),
    }
    return [name for name, way in ways.items() if is_open(way)]


def take_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        checked(_LIBC.syscall(ctypes.c_long(_PIDFD_GETFD), pidfd, 0, 0))
    finally:
        os.close(pidfd)


def read_some(path: str) -> None:
    if not open(path).read(1):
        raise PermissionError(path)


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def is_open(way: Callable[[], object]) -> bool:
    try:
        way()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
