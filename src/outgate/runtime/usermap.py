"""Each sandbox runs under 65,536 user ids of its own, which no account of the host has.

On disk all layers carry the ids that the sandbox sees (root is 0), so a layer fits every sandbox;
id-mapped mounts translate. The kernel takes such a mapping from a user namespace, and a user
namespace can be filled in only while a process lives in it: a short-lived one makes it, then a
descriptor keeps it. Mappings are made once per range and kept, because a sandbox's start is timed.
"""

import os
import subprocess
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from outgate.runtime.base import SandboxError

IDS_PER_SANDBOX = 65536
_FIRST_ID = 0x7000_0000
"""systemd's table of user ids (UIDS-GIDS.md) leaves 0x70000000 to 0x7fffffff to nobody."""
RANGES_MAX = 4096
"""As many as fit below 2^31, and as many as a host's address pool (a /20) has addresses."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """Number ``index`` of the ranges: the host's ids ``first_id`` and the 65,535 after it."""

    index: int

    @property
    def first_id(self) -> int:
        """The host's id of the sandbox's root."""
        return _FIRST_ID + self.index * IDS_PER_SANDBOX


def choose_range(taken: Collection[int]) -> IdRange:
    """The lowest range whose index is not ``taken``. Raises :class:`SandboxError` when all are."""
    for index in range(RANGES_MAX):
        if index not in taken:
            return IdRange(index)
    raise SandboxError(f"All {RANGES_MAX} ranges of user ids are in use; stop some sandboxes first.")


class UserMaps:
    """Descriptors of user namespaces, one per range that was ever used; at most :data:`RANGES_MAX`."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def descriptor(self, ids: IdRange) -> int:
        """A user namespace that maps ``ids``; stays open until :meth:`close`. Blocks for some 2 ms the first time."""
        with self._lock:
            found = self._descriptors.get(ids.index)
            if found is None:
                found = self._descriptors[ids.index] = _make_userns(ids)
            return found

    def close(self) -> None:
        """Close all descriptors."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()


def _make_userns(ids: IdRange) -> int:
    # cat answers once unshare(1) has made the namespace, and ends when its input does.
    with subprocess.Popen(
        ("unshare", "--user", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as holder:
        if holder.stdin is None or holder.stdout is None:  # pragma: no cover - both were asked for
            raise SandboxError("no pipes to the user namespace's holder")
        with suppress(BrokenPipeError):
            holder.stdin.write(b"x")
        if holder.stdout.read(1) != b"x":
            raise SandboxError("This host does not let root make user namespaces (user.max_user_namespaces).")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {ids.first_id} {IDS_PER_SANDBOX}\n")
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
