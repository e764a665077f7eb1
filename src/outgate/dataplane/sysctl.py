"""Kernel settings of the network namespace that the calling thread is in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from outgate.errors import OutgateError

_ROOT: Final = Path("/proc/sys/net")


class SysctlError(OutgateError):
    """A kernel setting could not be written."""

    code = "sysctl"


def read_sysctl(name: str) -> str | None:
    """The value of ``name`` (slashes, below net: ``ipv4/ip_forward``); None when the kernel has no such setting."""
    try:
        return (_ROOT / name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Set ``name``. Raises :class:`SysctlError`."""
    try:
        (_ROOT / name).write_text(value, encoding="ascii")
    except OSError as error:
        raise SysctlError(f"Setting net/{name} to {value}: {error.strerror}.") from None


def write_sysctls(wanted: Mapping[str, str]) -> None:
    """Set all of them, in a namespace that is new; those that this kernel does not have are left out.

    Raises :class:`SysctlError`.
    """
    for name, value in wanted.items():
        if (_ROOT / name).exists():
            write_sysctl(name, value)


def ensure_sysctls(wanted: Mapping[str, str]) -> None:
    """Set what differs; settings that this kernel does not have are left out. Raises :class:`SysctlError`."""
    for name in observe_differing(wanted):
        write_sysctl(name, wanted[name])


def observe_differing(wanted: Mapping[str, str]) -> tuple[str, ...]:
    """The settings that the kernel has and that differ from ``wanted``."""
    differing: list[str] = []
    for name, value in wanted.items():
        current = read_sysctl(name)
        if current is not None and current.split() != value.split():
            differing.append(name)
    return tuple(differing)
