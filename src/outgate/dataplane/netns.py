"""Network namespaces: made, entered, left, listed and removed, under the names that ``ip netns`` knows.

A namespace belongs to the *thread*. :func:`entered` moves the calling thread and brings it back whatever
happens; a thread that cannot be brought back ends the process, because everything it did afterwards would
happen in the wrong place.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from outgate.errors import OutgateError

NETNS_DIR: Final = Path("/run/netns")

_CLONE_NEWNET: Final = 0x4000_0000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2
_OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"
_EX_OSERR: Final = 71

_libc: Final = ctypes.CDLL(None, use_errno=True)


class NamespaceError(OutgateError):
    """A network namespace could not be made, entered or removed."""

    code = "namespace"


def _check(result: int, doing: str) -> None:
    if result != 0:
        raise NamespaceError(f"{doing}: {os.strerror(ctypes.get_errno())}.")


def namespace_path(name: str) -> Path:
    """Where the namespace ``name`` is kept."""
    return NETNS_DIR / name


@contextmanager
def _returning() -> Iterator[None]:
    """Bring the thread back to the namespace it is in now."""
    home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        if _libc.setns(home, _CLONE_NEWNET) != 0:
            os.write(2, b"outgate: cannot leave a network namespace; ending the process\n")
            os._exit(_EX_OSERR)
        os.close(home)


@contextmanager
def entered(namespace: str | int) -> Iterator[None]:
    """Run the body in the namespace of that name (or open descriptor). Raises :class:`NamespaceError`."""
    if isinstance(namespace, int):
        with _returning():
            _check(_libc.setns(namespace, _CLONE_NEWNET), "entering a network namespace")
            yield
        return
    descriptor = open_namespace(namespace)
    try:
        with _returning():
            _check(_libc.setns(descriptor, _CLONE_NEWNET), f"entering the network namespace {namespace}")
            yield
    finally:
        os.close(descriptor)


def enter(namespace: int) -> None:
    """Move the calling thread, for good, into the namespace of that open descriptor. Raises :class:`NamespaceError`."""
    _check(_libc.setns(namespace, _CLONE_NEWNET), "entering a network namespace")


@contextmanager
def entered_fresh() -> Iterator[None]:
    """Run the body in a new namespace without a name, which is gone when nothing uses it any more."""
    with _returning():
        _check(_libc.unshare(_CLONE_NEWNET), "making a network namespace")
        yield


def open_namespace(name: str) -> int:
    """A descriptor of the namespace ``name``. Raises :class:`NamespaceError` when there is none."""
    try:
        return os.open(namespace_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"opening the network namespace {name}: {error.strerror}.") from None


def open_own_namespace() -> int:
    """A descriptor of the namespace that the calling thread is in."""
    return os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def created(name: str) -> Iterator[None]:
    """Make the namespace ``name`` and run the body in it; if the body fails, the namespace is removed again.

    A file of that name that is no namespace any more is replaced. Raises :class:`NamespaceError`, also when
    the namespace exists.
    """
    _ensure_directory()
    path = namespace_path(name)
    if has_namespace(name):
        raise NamespaceError(f"making the network namespace {name}: it exists.")
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o000))
    try:
        with _returning():
            _check(_libc.unshare(_CLONE_NEWNET), f"making the network namespace {name}")
            result = _libc.mount(_OWN_NAMESPACE.encode(), os.fsencode(path), b"none", _MS_BIND, None)
            _check(result, f"keeping the network namespace {name}")
            yield
    except BaseException:
        remove_namespace(name)
        raise


def has_namespace(name: str) -> bool:
    """Whether there is a namespace of that name, and not just a file left over by one."""
    path = namespace_path(name)
    try:
        # A kept namespace is a mount of the kernel's nsfs: another device than the directory's.
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def remove_namespace(name: str) -> None:
    """Let go of the namespace ``name``. Does nothing when there is none."""
    path = namespace_path(name)
    while has_namespace(name):
        _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"removing the network namespace {name}")
    path.unlink(missing_ok=True)


def list_namespaces(prefix: str) -> tuple[str, ...]:
    """Names that begin with ``prefix``, left-over files included."""
    try:
        return tuple(sorted(entry.name for entry in NETNS_DIR.iterdir() if entry.name.startswith(prefix)))
    except FileNotFoundError:
        return ()


def namespace_identity(namespace: str | int) -> tuple[int, int]:
    """Device and inode of a namespace: what makes two of them the same. Raises :class:`NamespaceError`."""
    try:
        status = os.fstat(namespace) if isinstance(namespace, int) else namespace_path(namespace).stat()
    except OSError as error:
        raise NamespaceError(f"looking at the network namespace {namespace}: {error.strerror}.") from None
    return status.st_dev, status.st_ino


def _ensure_directory() -> None:
    """Make /run/netns a shared mount, as ``ip netns`` does, so that every mount namespace sees the same names."""
    NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = os.fsencode(NETNS_DIR)
    if _libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    _check(_libc.mount(directory, directory, b"none", _MS_BIND | _MS_REC, None), "mounting /run/netns")
    _check(_libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None), "sharing /run/netns")
