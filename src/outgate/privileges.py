"""Giving up privileges, for good, dying with the parent, adopting orphans: prctl, capset and the setres calls.

Capabilities and no_new_privs belong to a thread, so each thread gives up its own; a process that gives up all of
them does it while it has one.
"""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from outgate.errors import HostNotCapableError


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


# linux/prctl.h, linux/capability.h; capset(2): version 3 takes two 32-bit halves.
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_CAPABILITIES: Final = 64
_NO_CAPABILITIES: Final = "0" * 16
_OWN_STATUS: Final = Path("/proc/thread-self/status")
_OWN_THREADS: Final = Path("/proc/self/task")
_DESCRIPTORS_MOST: Final = Path("/proc/sys/fs/nr_open")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(HostNotCapableError):
    """The kernel did not let a privilege go. The process must not go on with it."""

    code = "privileges"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process becomes."""

    uid: int
    gid: int


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_privileges(identity: Identity) -> None:
    """Become ``identity``, without supplementary groups, capabilities, or a way back.

    A process that is not root can only be ``identity`` already. The signal that :func:`die_with_parent` asked for
    is asked for again. Raises :class:`PrivilegeError` when anything of it fails, also when the process has other
    threads, which would keep what they have; it must not go on then. Raises OSError.
    """
    _check_single_threaded()
    parent, death_signal = os.getppid(), _death_signal()
    is_root = os.geteuid() == 0
    if is_root:
        become_user(identity)
        keep_capabilities()
    elif (os.getuid(), os.getgid()) != (identity.uid, identity.gid):
        message = f"Only root can become uid {identity.uid}, gid {identity.gid}; this is uid {os.getuid()}."
        raise PrivilegeError(message)
    else:
        # The bounding set stays: only root may change it, and with no_new_privs nothing is gained by it.
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _set_capabilities(())
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if death_signal and os.getppid() != parent:
        raise PrivilegeError("The parent process ended while this one gave up its privileges.")
    _check_dropped(identity, was_root=is_root)


def become_user(identity: Identity) -> None:
    """Become an unprivileged user, all capabilities kept: to be followed by :func:`keep_capabilities`.

    The kernel forgets what :func:`die_with_parent` asked for; ask again. Call it before there are threads: the C
    library changes the user of all of them. Raises :class:`PrivilegeError` and OSError.
    """
    held = _permitted()
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    _prctl(_PR_SET_KEEPCAPS, 0)
    _set_capabilities(held)


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
    _check_single_threaded()
    keep_capabilities(*(_permitted() & {int(number) for number in wanted}))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises :class:`PrivilegeError`.

    ``parent_pid`` is who that should be; if it is gone already, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, and so the one to wait for its end.

    Raises :class:`PrivilegeError`.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


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


def _check_single_threaded() -> None:
    threads = sum(1 for _ in _OWN_THREADS.iterdir())
    if threads != 1:
        raise PrivilegeError(f"Privileges must be given up before threads start; there are {threads}.")


def _death_signal() -> int:
    """The signal asked for at the parent's death; 0 for none."""
    number = ctypes.c_int(0)
    if _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0) != 0:
        raise PrivilegeError(f"prctl({_PR_GET_PDEATHSIG}): {os.strerror(ctypes.get_errno())}.")
    return number.value


def _permitted() -> frozenset[int]:
    """The calling thread's capabilities."""
    mask = int(_read_status()["CapPrm"], 16)
    return frozenset(number for number in range(_CAPABILITIES) if mask >> number & 1)


def _set_capabilities(numbers: Iterable[int]) -> None:
    mask = sum(1 << number for number in numbers)
    header = _Header(_CAPABILITY_VERSION_3, 0)
    words = [(mask >> shift) & 0xFFFF_FFFF for shift in (0, 32)]
    data = (_Data * 2)(*(_Data(word, word, 0) for word in words))
    if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise PrivilegeError(f"Giving up capabilities: {os.strerror(ctypes.get_errno())}.")


def _check_dropped(identity: Identity, *, was_root: bool) -> None:
    """Believe the kernel, not the return codes."""
    expected = {
        "Uid": "\t".join([str(identity.uid)] * 4),
        "Gid": "\t".join([str(identity.gid)] * 4),
        "CapPrm": _NO_CAPABILITIES,
        "CapEff": _NO_CAPABILITIES,
        "CapInh": _NO_CAPABILITIES,
        "NoNewPrivs": "1",
    }
    if was_root:
        expected |= {"Groups": "", "CapBnd": _NO_CAPABILITIES}
    status = _read_status()
    for name, value in expected.items():
        if status[name] != value:
            raise PrivilegeError(f"{name} is {status[name]!r} after giving up privileges; it must be {value!r}.")


def _read_status() -> dict[str, str]:
    """What the kernel says of the calling thread (proc_pid_status(5))."""
    lines = (line.partition(":") for line in _OWN_STATUS.read_text("ascii").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise PrivilegeError(f"prctl({option}): {os.strerror(ctypes.get_errno())}.")
