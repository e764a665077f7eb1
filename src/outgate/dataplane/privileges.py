"""Giving up privileges, and dying with the parent: prctl and capset by ctypes.

Capabilities belong to a thread, so each thread gives up its own.
"""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from outgate.errors import OutgateError


class Capability(IntEnum):
    """Those that some process of Outgate has a use for, by their numbers (linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SETFCAP = 31


# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_CAPABILITIES: Final = 64
_OWN_STATUS: Final = Path("/proc/thread-self/status")
_DESCRIPTORS_MOST: Final = Path("/proc/sys/fs/nr_open")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(OutgateError):
    """The kernel did not let a privilege go."""

    code = "privileges"


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep_capabilities(*kept: int) -> None:
    """Leave the calling thread, and whatever it may ever start, no capabilities but ``kept``.

    Raises :class:`PrivilegeError`.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_CAPABILITIES):
        if number not in kept and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _prctl(_PR_CAPBSET_DROP, number)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _set_capabilities(kept)


def keep_held_capabilities(wanted: Iterable[int]) -> None:
    """As :func:`keep_capabilities` with those of ``wanted`` that the calling thread has: a host may withhold some.

    Raises :class:`PrivilegeError`, also when the process has other threads, which would keep all of theirs.
    """
    if (threads := len(os.listdir("/proc/self/task"))) != 1:  # noqa: PTH208 - a count, no paths
        raise PrivilegeError(f"privileges must be given up before threads start; there are {threads}.")
    keep_capabilities(*(_permitted() & {int(number) for number in wanted}))


def become_user(uid: int, gid: int) -> None:
    """Become an unprivileged user, all capabilities kept: to be followed by :func:`keep_capabilities`.

    The kernel forgets what :func:`die_with_parent` asked for; ask again. Call it before there are threads: the C
    library changes the user of all of them. Raises :class:`PrivilegeError` and OSError.
    """
    held = _permitted()
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_KEEPCAPS, 0)
    _set_capabilities(held)


def _permitted() -> frozenset[int]:
    """The calling thread's capabilities."""
    lines = _OWN_STATUS.read_text("ascii").splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))
    return frozenset(number for number in range(_CAPABILITIES) if mask >> number & 1)


def _set_capabilities(numbers: Iterable[int]) -> None:
    mask = sum(1 << number for number in numbers)
    header = _Header(_CAPABILITY_VERSION_3, 0)
    words = [(mask >> shift) & 0xFFFF_FFFF for shift in (0, 32)]
    data = (_Data * 2)(*(_Data(word, word, 0) for word in words))
    if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise PrivilegeError(f"giving up capabilities: {os.strerror(ctypes.get_errno())}.")


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises :class:`PrivilegeError`.

    ``parent_pid`` is who that should be; if it is gone already, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as this process may have; returns how many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        # Without CAP_SYS_RESOURCE the hard limit stays what it is.
        most = max(hard, int(_DESCRIPTORS_MOST.read_text()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise PrivilegeError(f"prctl({option}): {os.strerror(ctypes.get_errno())}.")
