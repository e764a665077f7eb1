"""What is put into a devbox before its first launch command: files, stored objects, clones of repositories.

All of it is done by commands inside the devbox: nothing that a caller or an archive names is ever opened by the
host. Archives are unpacked and repositories cloned by the devbox's own user, the latter under its policy like
anything else it does. The devbox's own root (a nobody to the host) makes the directories that are missing and
writes single files, so that a mount below /etc works; what it makes belongs to the user.
"""

import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from shlex import quote
from typing import Final, Protocol

from outgate.agent.commands import CommandEnd, Commands
from outgate.model.desired import (
    CodeMountDocument,
    FileMountDocument,
    MountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from outgate.runtime.base import ROOT, ExecSpec, SandboxUser

_CHUNK_BYTES: Final = 65_536
"""What a pipe holds."""

_MAKE_FOLDER: Final = """\
umask 022
make_folder() {{
  [ -d "$1" ] || {{ make_folder "$(dirname -- "$1")" && mkdir -- "$1" && chown {owner} -- "$1"; }}
}}
"""
_WRITE_FILE: Final = (
    _MAKE_FOLDER
    + """\
make_folder "$(dirname -- {target})" && cat >{target} && chown {owner} -- {target}
"""
)
_MAKE_TARGET: Final = (
    _MAKE_FOLDER
    + """\
make_folder {target}
"""
)
_UNPACK: Final = {
    ObjectForm.TAR: "tar -x --no-same-owner -f - -C {target}",
    ObjectForm.TGZ: "tar -x -z --no-same-owner -f - -C {target}",
    ObjectForm.GZIP: "gzip -d -c >{target}",
}
# The token is read from standard input and handed to git by a helper of this one command: it stands on no command
# line and in no file. A clone that needs another credential fails instead of waiting for a person.
_CLONE: Final = """\
IFS= read -r OUTGATE_GIT_TOKEN
export OUTGATE_GIT_TOKEN GIT_TERMINAL_PROMPT=0
git -c credential.helper= -c \
credential.helper='!f() {{ [ -z "$OUTGATE_GIT_TOKEN" ] || {{ echo username=x-access-token; \
echo "password=$OUTGATE_GIT_TOKEN"; }}; }}; f' clone --quiet -- {url} {target} || exit
cd -- {target} || exit
[ -z {ref} ] || git checkout --quiet {ref} --
"""


class ObjectSource(Protocol):
    """Where stored objects are read from."""

    def open_object(self, object_id: str) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """The object's bytes, in chunks. Raises PeerUnreachableError and PeerRefusedError."""


@dataclass(frozen=True, slots=True)
class MountFailure:
    """What could not be done, and how the command for it ended."""

    what: str
    end: CommandEnd


@dataclass(frozen=True, slots=True)
class Mounter:
    """Makes the mounts of one devbox. ``prefix`` makes its executions' ids unlike those of an earlier attempt."""

    commands: Commands
    objects: ObjectSource
    user: SandboxUser
    prefix: str

    async def make(self, position: int, mount: MountDocument) -> MountFailure | None:
        """Make one mount; None when all went well.

        Raises :class:`SandboxError`, :class:`BootInterruptedError`, PeerUnreachableError and PeerRefusedError.
        """
        execution_id = f"{self.prefix}-{position}"
        match mount:
            case FileMountDocument():
                return await self._write_file(execution_id, mount)
            case ObjectMountDocument():
                return await self._place_object(execution_id, mount)
            case CodeMountDocument():
                return await self._clone(execution_id, mount)

    async def _write_file(self, execution_id: str, mount: FileMountDocument) -> MountFailure | None:
        spec = ExecSpec(execution_id, self._script(_WRITE_FILE, mount.target), user=ROOT)
        end = await self.commands.feed(spec, _chunks(mount.content.encode()))
        return _judge(f"The mount of file {mount.target}", end)

    async def _place_object(self, execution_id: str, mount: ObjectMountDocument) -> MountFailure | None:
        what = f"The mount of object {mount.object_id} at {mount.target}"
        if mount.form is ObjectForm.FILE:
            spec = ExecSpec(execution_id, self._script(_WRITE_FILE, mount.target), user=ROOT)
        else:
            folder = mount.target if mount.form is not ObjectForm.GZIP else posixpath.dirname(self._place(mount.target))
            made = ExecSpec(f"{execution_id}-folder", self._script(_MAKE_TARGET, folder), user=ROOT)
            failure = _judge(what, await self.commands.run(made))
            if failure is not None:
                return failure
            spec = ExecSpec(execution_id, self._script(_UNPACK[mount.form], mount.target))
        async with self.objects.open_object(mount.object_id) as data:
            return _judge(what, await self.commands.feed(spec, data))

    async def _clone(self, execution_id: str, mount: CodeMountDocument) -> MountFailure | None:
        script = _CLONE.format(
            url=quote(mount.url), target=quote(self._place(mount.target)), ref=quote(mount.ref or "")
        )
        token = f"{mount.token or ''}\n".encode()
        end = await self.commands.feed(ExecSpec(execution_id, script), _chunks(token))
        failure = _judge(f"The clone of {mount.url}", end)
        if failure is not None or mount.install_command is None:
            return failure
        install = f"cd -- {quote(self._place(mount.target))} || exit\n{mount.install_command}"
        end = await self.commands.run(ExecSpec(f"{execution_id}-install", install))
        return _judge(f"The install command of {mount.url}", end)

    def _script(self, template: str, target: str) -> str:
        owner = f"{self.user.uid}:{self.user.uid}"
        return template.format(target=quote(self._place(target)), owner=owner)

    def _place(self, target: str) -> str:
        return posixpath.join(self.user.home, target)


def _judge(what: str, end: CommandEnd) -> MountFailure | None:
    return None if end.exit_status == 0 else MountFailure(what, end)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
