"""Giving up root: what is left, and that a drop that does not take is noticed. Each case is a process of its own."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from outgate import privileges
from outgate.privileges import Capability, Identity, PrivilegeError, die_with_parent, drop_privileges

NOBODY = Identity(65534, 65534)
DAEMON = Identity(1, 1)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")


def in_a_child(work: Callable[[], object]) -> str:
    """What ``work`` came to in a process of one thread: its result, or the error that it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - a child must not go on as pytest
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def status(*names: str) -> list[str]:
    lines = (line.partition(":") for line in Path("/proc/thread-self/status").read_text().splitlines())
    said = {name: value.split() for name, _, value in lines}
    return [" ".join(said[name]) for name in names]


@needs_root
def test_nothing_of_root_is_left() -> None:
    def drop() -> list[str]:
        drop_privileges(NOBODY)
        return status("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")

    ids, none = " ".join(["65534"] * 4), "0" * 16
    assert in_a_child(drop) == str([ids, ids, "", *[none] * 5, "1"])


@needs_root
def test_there_is_no_way_back() -> None:
    def drop_and_return() -> None:
        drop_privileges(NOBODY)
        os.setresuid(0, 0, 0)

    assert in_a_child(drop_and_return).startswith("PermissionError")


@needs_root
def test_who_is_not_root_keeps_who_he_is_and_loses_what_else_he_has() -> None:
    """As below a service manager that gives an unprivileged user a capability."""

    def drop() -> list[str]:
        privileges.become_user(NOBODY)
        held = status("CapPrm")
        assert held != ["0" * 16]
        drop_privileges(NOBODY)
        return status("Uid", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")

    assert in_a_child(drop) == str([" ".join(["65534"] * 4), *["0" * 16] * 4, "1"])


@needs_root
def test_who_is_not_root_becomes_nobody_else() -> None:
    def drop() -> None:
        drop_privileges(DAEMON)
        drop_privileges(NOBODY)

    assert in_a_child(drop) == "PrivilegeError: Only root can become uid 65534, gid 65534; this is uid 1."


@needs_root
def test_it_still_dies_with_its_parent() -> None:
    def drop() -> int:
        die_with_parent(os.getppid())
        drop_privileges(NOBODY)
        return privileges._death_signal()

    assert in_a_child(drop) == str(int(signal.SIGKILL))


@needs_root
def test_privileges_are_kept_by_nobody_who_has_threads() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(PrivilegeError, match="before threads start"):
            drop_privileges(NOBODY)
        with pytest.raises(PrivilegeError, match="before threads start"):
            privileges.keep_held_capabilities(Capability)
    finally:
        release.set()
        thread.join()
    assert os.geteuid() == 0


@needs_root
@pytest.mark.parametrize(("idle", "noticed"), [("become_user", "Uid"), ("keep_capabilities", "CapPrm")])
def test_a_drop_that_does_not_take_is_noticed(monkeypatch: pytest.MonkeyPatch, idle: str, noticed: str) -> None:
    monkeypatch.setattr(privileges, idle, lambda *_given: None)
    assert in_a_child(lambda: drop_privileges(NOBODY)).startswith(f"PrivilegeError: {noticed} is ")


@needs_root
def test_what_is_kept_is_all_that_is_held() -> None:
    def keep() -> list[str]:
        privileges.keep_held_capabilities([Capability.KILL, Capability.SETUID])
        return status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")

    kept = f"{1 << Capability.KILL | 1 << Capability.SETUID:016x}"
    assert in_a_child(keep) == str(["0" * 16, kept, kept, kept, "0" * 16, "1"])
