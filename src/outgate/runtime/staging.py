"""Work in a sandbox's network namespace, done by a thread that is thrown away afterwards.

Namespaces belong to threads. A thread that entered one and came back would be trusted not to have failed
on the way; one that ends cannot do anything in the wrong place.

The OCI runtime is always started from inside the sandbox's network namespace and inherits it. To name the
namespace in the bundle would do for the first process, but not for executions: runc 1.1 enters the user
namespace first, and may then not enter a network namespace that belongs to the host. That is the very
property which keeps root in a sandbox from raw sockets and from the filter. So everything depends on the
thread being where it should be, and :func:`_enter` proves it before any work is done.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from outgate.runtime import syscalls
from outgate.runtime.base import SandboxError

Result = TypeVar("Result")

_SETTINGS: Final = (
    # A sandbox's root has no capability over its network namespace, so low ports and ping are opened to all in it.
    (Path("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0"),
    (Path("/proc/sys/net/ipv4/ping_group_range"), "0 2147483647"),
)


def run_staged(netns: Path, work: Callable[[], Result]) -> Result:
    """What ``work`` returns or raises, run inside network namespace ``netns`` and a mount namespace of its own.

    Raises :class:`SandboxError` when the namespace cannot be entered, or is the daemon's own.
    """

    def stage() -> Result:
        try:
            descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxError(f"There is no network namespace {netns} ({error.strerror}).") from error
        try:
            _enter(descriptor, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        for setting, value in _SETTINGS:
            setting.write_text(value)
        syscalls.unshare_mounts()
        return work()

    return _run_in_thread(stage)


def run_beside(pid: int, pidfd: int, work: Callable[[], Result]) -> Result:
    """What ``work`` returns or raises, run inside the network namespace of process ``pid``, which ``pidfd`` pins.

    Raises :class:`SandboxError` when the process is gone, or its namespace is the daemon's own.
    """

    def stage() -> Result:
        try:
            namespace = Path(f"/proc/{pid}/ns/net").stat()
        except OSError as error:
            raise SandboxError("The sandbox ended.") from error
        _enter(pidfd, namespace)
        return work()

    return _run_in_thread(stage)


def _enter(descriptor: int, expected: os.stat_result) -> None:
    own = Path("/proc/self/ns/net").stat()
    try:
        syscalls.enter_netns(descriptor)
    except OSError as error:
        raise SandboxError(f"The sandbox's network namespace cannot be entered: {error.strerror}.") from error
    entered = Path("/proc/thread-self/ns/net").stat()
    if (entered.st_dev, entered.st_ino) != (expected.st_dev, expected.st_ino):
        raise SandboxError("The sandbox's network namespace changed while it was being entered.")
    if (entered.st_dev, entered.st_ino) == (own.st_dev, own.st_ino):
        raise SandboxError("This is the daemon's own network namespace: nothing in it would be filtered.")


def _run_in_thread(stage: Callable[[], Result]) -> Result:
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(stage())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="sandbox-staging")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
