"""Runs a command with what a systemd unit leaves to its processes, where no systemd runs.

    python as_unit.py UNIT COMMAND …

Carries out capabilities, no_new_privs, system calls and address families; what those words of a unit mean is
asked of ``systemd-analyze``. Everything else (directories, limits, mounts) is the caller's.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_ALLOW = 0x7FFF_0000  # seccomp.h: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, and the comparison SCMP_CMP_EQ
_REFUSE = 0x0005_0000 | errno.EPERM
_EQUAL = 4
_FAMILIES = 46  # linux/socket.h: AF_MAX


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def read_unit(path: Path) -> Mapping[str, list[str]]:
    """Each setting of [Service] with its values, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def words(unit: Mapping[str, list[str]], name: str) -> list[str]:
    """The words of all values of a setting."""
    return " ".join(unit.get(name, ())).split()


def expand_calls(names: Iterable[str]) -> frozenset[str]:
    """The system calls of these names and @groups, groups of groups included."""
    calls, groups = set[str](), [*names]
    for name in groups:
        if not name.startswith("@"):
            calls.add(name)
            continue
        listed = subprocess.run(("systemd-analyze", "syscall-filter", name), capture_output=True, text=True, check=True)
        lines = (line.strip() for line in listed.stdout.splitlines()[1:])
        groups += [line for line in lines if line and not line.startswith("#")]
    return frozenset(calls)


def refused_calls(unit: Mapping[str, list[str]]) -> frozenset[str]:
    """The calls of a unit whose SystemCallFilter= is a list of what is refused."""
    given = words(unit, "SystemCallFilter")
    return expand_calls([given[0].removeprefix("~"), *given[1:]]) if given[0].startswith("~") else frozenset()


def _filter_calls(unit: Mapping[str, list[str]]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    given = words(unit, "SystemCallFilter")
    is_refusing = given[0].startswith("~")
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW if is_refusing else _REFUSE))
    names = refused_calls(unit) if is_refusing else expand_calls([*given, "@default"])
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others are of other machines
            library.seccomp_rule_add(context, _REFUSE if is_refusing else _ALLOW, number, 0)
    _load(library, context)


def _filter_families(unit: Mapping[str, list[str]]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    kept = {int(getattr(socket, name)) for name in words(unit, "RestrictAddressFamilies")}
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in set(range(_FAMILIES)) - kept:
        comparison = (_Comparison * 1)(_Comparison(0, _EQUAL, family, 0))
        library.seccomp_rule_add_array(context, _REFUSE, number, 1, comparison)
    _load(library, context)


def _load(library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
    if library.seccomp_load(context) != 0:
        raise OSError("the filter was not taken")
    library.seccomp_release(context)


def main(unit_file: str, *command: str) -> None:
    unit = read_unit(Path(unit_file))
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in words(unit, "CapabilityBoundingSet"))
    # Loaded before the command starts, so after no_new_privs; setpriv comes first, which empties the bounding set.
    if os.environ.pop("AS_UNIT_STAGE", "") != "filters":
        os.environ["AS_UNIT_STAGE"] = "filters"
        again = (sys.executable, __file__, unit_file, *command)
        os.execvp("setpriv", ("setpriv", f"--bounding-set=-all,{kept}", "--no-new-privs", *again))  # noqa: S606 - no shell is wanted
    _filter_families(unit)
    _filter_calls(unit)  # last, as systemd does: it may refuse to load further ones
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(*sys.argv[1:])
