"""Giving up privileges, and dying with the parent: prctl and capset by ctypes.

Capabilities belong to a thread, so each thread gives up its own.
"""

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Final

from outgate.errors import OutgateError

CAP_NET_ADMIN: Final = 12

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_CAPABILITIES: Final = 64
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
    mask = sum(1 << number for number in kept)
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
