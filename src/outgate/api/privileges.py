"""Giving up root, for good: the api needs none once its sockets are bound and its modules are loaded."""

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgate.errors import HostNotCapableError

# Numbers of linux/prctl.h, for prctl (man page, section 2).
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
# capset(2): version 3 takes two 32-bit halves.
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the process becomes."""

    uid: int
    gid: int


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_privileges(identity: Identity) -> None:
    """Become ``identity``, without supplementary groups, capabilities, or a way back.

    Must run before the process has threads: no_new_privs and capabilities belong to threads, not to the process.
    The signal asked for at the parent's death, which the kernel forgets at a change of identity, is asked for
    again. Raises HostNotCapableError when anything of it fails; the process must not go on then.
    """
    _check_single_threaded()
    libc = ctypes.CDLL(None, use_errno=True)
    death_signal = ctypes.c_int(0)
    _checked(libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal)), "PR_GET_PDEATHSIG")
    parent = os.getppid()
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if os.geteuid() == 0:
        _empty_bounding_set(libc)
    _become(identity)
    _clear_capabilities(libc)
    _checked(libc.prctl(_PR_SET_PDEATHSIG, death_signal.value), "PR_SET_PDEATHSIG")
    if death_signal.value and os.getppid() != parent:
        raise HostNotCapableError("The parent process ended while the api gave up its privileges.")
    _check_dropped(identity)


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each long poll holds a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_single_threaded() -> None:
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads != 1:
        raise HostNotCapableError(f"Privileges must be given up before threads start; there are {threads}.")


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    for capability in range(_CAPABILITIES_MAX):
        if libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _checked(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "PR_CAPBSET_DROP")


def _become(identity: Identity) -> None:
    if os.geteuid() != 0:
        if (os.getuid(), os.getgid()) != (identity.uid, identity.gid):
            message = f"Only root can become uid {identity.uid}, gid {identity.gid}; this is uid {os.getuid()}."
            raise HostNotCapableError(message)
        return
    os.setgroups([])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _clear_capabilities(libc: ctypes.CDLL) -> None:
    _checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT_CLEAR_ALL")
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    _checked(libc.capset(ctypes.byref(header), (_CapabilityData * 2)()), "capset")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise HostNotCapableError(f"{what} failed: {os.strerror(ctypes.get_errno())}.")


def _check_dropped(identity: Identity) -> None:
    """Believe the kernel, not the return codes."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    expected = {
        "Uid": "\t".join([str(identity.uid)] * 4),
        "Gid": "\t".join([str(identity.gid)] * 4),
        "CapPrm": "0" * 16,
        "CapEff": "0" * 16,
        "CapInh": "0" * 16,
        "NoNewPrivs": "1",
    }
    for name, value in expected.items():
        if status[name].strip() != value:
            raise HostNotCapableError(f"{name} is {status[name]!r} after giving up privileges; it must be {value!r}.")
