"""Each system call that has no business in a devbox, tried with real arguments: refused inside, answered outside."""

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from kernel.boundary.conftest import PROGRAMS, run_program
from support.sandbox_lab import Lab

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are x86_64's"),
]

_HERE, _NEGATIVE = -100, -1  # AT_FDCWD, no descriptor
_SIGCHLD = 17
_X32 = 0x4000_0000
_NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "host name": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "network": 0x4000_0000,
}
_REFUSALS = {"EPERM", "ENOSYS", "SIGSYS"}


@dataclass(frozen=True, slots=True)
class Row:
    """One call. ``is_tried_outside``: it changes nothing when it is answered, so the host's root may make it too."""

    name: str
    number: int
    arguments: tuple[Any, ...] = ()
    way: str = "syscall"
    is_tried_outside: bool = True

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "number": self.number, "arguments": self.arguments, "way": self.way}


def _buffer(size: int) -> dict[str, int]:
    return {"zeros": size}


REFUSED = (
    # Surfaces on which unprivileged callers found most kernel exploits of late.
    Row("io_uring_setup", 425, (8, _buffer(120))),
    Row("io_uring_enter", 426, (_NEGATIVE, 0, 0, 0, 0, 0)),
    Row("io_uring_register", 427, (_NEGATIVE, 0, 0, 0)),
    Row("bpf", 321, (5, _buffer(128), 128)),
    Row("userfaultfd", 323, (0,)),
    Row("perf_event_open", 298, (0, 0, _NEGATIVE, _NEGATIVE, 0)),
    Row("add_key", 248, ("user", "outgate-probe", "x", 1, -2)),
    Row("request_key", 249, ("user", "outgate-probe", 0, 0)),
    Row("keyctl", 250, (0, -2, 0)),
    # Mounts, by the old interface and the new.
    Row("mount", 165, ("none", "/nonexistent", "tmpfs", 0, 0)),
    Row("umount2", 166, ("/nonexistent", 0)),
    Row("pivot_root", 155, ("/nonexistent", "/nonexistent")),
    Row("fsopen", 430, ("tmpfs", 0)),
    Row("fsconfig", 431, (_NEGATIVE, 0, 0, 0, 0)),
    Row("fsmount", 432, (_NEGATIVE, 0, 0)),
    Row("fspick", 433, (_HERE, "/", 0)),
    Row("open_tree", 428, (_HERE, "/", 0)),
    Row("open_tree that clones", 428, (_HERE, "/", 1)),
    Row("move_mount", 429, (_NEGATIVE, "", _NEGATIVE, "", 0)),
    Row("mount_setattr", 442, (_NEGATIVE, "", 0x1000, _buffer(32), 32)),
    Row("statmount", 457, (0, 0, 0, 0)),
    Row("listmount", 458, (0, 0, 0, 0)),
    # Namespaces.
    *(Row(f"unshare the {name} namespace", 272, (flag,)) for name, flag in _NAMESPACES.items()),
    Row("unshare the time namespace", 272, (0x80,)),
    *(
        Row(f"clone with a new {name} namespace", 56, (flag | _SIGCHLD, 0, 0, 0, 0))
        for name, flag in _NAMESPACES.items()
    ),
    Row("clone3, whose flags no filter sees", 435, (_buffer(88), 88)),
    Row("setns", 308, ({"open": "/proc/self/ns/uts"}, 0)),
    # Files by handles, which know no mounts (CVE-2014-3534 of Docker, "shocker").
    Row("name_to_handle_at", 303, (_HERE, "/", _buffer(136), _buffer(8), 0)),
    Row("open_by_handle_at", 304, (_HERE, _buffer(136), 0)),
    Row("fanotify_init", 300, (0, 0)),
    Row("quotactl", 179, (0, 0, 0, 0)),
    Row("quotactl_fd", 443, (_NEGATIVE, 0, 0, 0)),
    # The machine.
    Row("init_module", 175, (0, 0, "")),
    Row("finit_module", 313, (_NEGATIVE, "", 0)),
    Row("delete_module", 176, ("outgate_no_such", 0)),
    Row("kexec_load", 246, (0, 17, 0, 0)),
    Row("kexec_file_load", 320, (_NEGATIVE, _NEGATIVE, 0, 0, 0)),
    Row("reboot", 169, (0, 0, 0, 0)),
    Row("swapon", 167, ("/nonexistent", 0)),
    Row("swapoff", 168, ("/nonexistent",)),
    Row("acct", 163, ("/nonexistent",)),
    Row("settimeofday", 164, (0, 0)),
    Row("clock_settime", 227, (0, 0)),
    Row("adjtimex", 159, (0,)),
    Row("clock_adjtime", 305, (0, 0)),
    Row("sethostname", 170, (0, _NEGATIVE)),
    Row("setdomainname", 171, (0, _NEGATIVE)),
    Row("iopl", 172, (0,)),
    Row("ioperm", 173, (0, 0, 0)),
    Row("syslog", 103, (10, 0, 0)),
    Row("vhangup", 153, is_tried_outside=False),
    Row("migrate_pages", 256, (0, 0, 0, 0)),
    Row("move_pages", 279, (0, 0, 0, 0, 0, 0)),
    Row("uselib", 134, ("/nonexistent",)),
    Row("ustat", 136, (0, _buffer(64))),
    Row("sysfs", 139, (3,)),
    Row("_sysctl", 156, (0,)),
    Row("lookup_dcookie", 212, (0, 0, 0)),
    # Other ways of calling, to which the rules for arguments do not apply.
    Row("personality of 32 bits", 135, (0x0008,)),
    Row("personality that makes all memory executable", 135, (0x0040_0000,)),
    Row("x32 getpid", _X32 | 39),
    Row("x32 ptrace", _X32 | 521, (0, 0, 0, 0)),
    Row("int 0x80 getpid", 20, way="int80"),
    Row("int 0x80 mount", 21, way="int80"),
    Row("int 0x80 socketcall", 102, (1, 0), way="int80"),
    Row("a call that there is not", 1000),
)
ALLOWED = (
    Row("personality as it is", 135, (0xFFFF_FFFF,)),
    Row("clone as fork does", 56, (_SIGCHLD, 0, 0, 0, 0)),
    Row("epoll_create1", 291, (0,)),
    Row("eventfd2", 290, (0, 0)),
    Row("memfd_create", 319, ("x", 0)),
    Row("inotify_init1", 294, (0,)),
    Row("openat", 257, (_HERE, "/", 0, 0)),
    Row("io_setup", 206, (1, _buffer(8))),
    Row("mmap", 9, (0, 4096, 1, 0x22, _NEGATIVE, 0)),
)
Outcomes = dict[str, str]


@pytest.fixture(scope="module", params=[True, False], ids=["root", "user"])
def inside(lab: Lab, request: pytest.FixtureRequest) -> Outcomes:
    rows = [row.document() for row in (*REFUSED, *ALLOWED)]
    outcomes: Outcomes = run_program(lab, "calls.py", rows, root=request.param)
    return outcomes


@pytest.fixture(scope="module")
def outside() -> Outcomes:
    rows = [row.document() for row in REFUSED if row.is_tried_outside]
    done = subprocess.run(
        (sys.executable, PROGRAMS / "calls.py", json.dumps(rows)), capture_output=True, text=True, check=True
    )
    outcomes: Outcomes = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_the_call_is_refused(inside: Outcomes, row: Row) -> None:
    assert inside[row.name] in _REFUSALS


@pytest.mark.parametrize("row", ALLOWED, ids=lambda row: row.name)
def test_its_harmless_neighbour_works(inside: Outcomes, row: Row) -> None:
    assert inside[row.name] == "done"


def test_it_is_the_sandbox_that_refuses(inside: Outcomes, outside: Outcomes) -> None:
    """The control: where this kernel has the call at all, the host's root is told something else than in there."""
    alike = {name for name, outcome in outside.items() if outcome in _REFUSALS | {"SIGSEGV"}}
    assert {outside[name] for name in alike} <= {"ENOSYS", "SIGSEGV"}
    assert len(alike) <= 15, {name: outside[name] for name in alike}
    assert all(inside[name] != outcome for name, outcome in outside.items() if name not in alike)
