"""An SFTP server, version 3 (draft-ietf-secsh-filexfer-02), on standard input and output.

It runs inside the devbox, as the devbox's user: what it may read and write is decided there, by the kernel, and
nowhere else. It is sent as text to images that have python3 but no sftp-server, so it stays one file, and works
with Python 3.8. Where clients and the draft differ it does what OpenSSH does (its file PROTOCOL).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
from typing import Callable  # noqa: UP035 - collections.abc's cannot be subscripted in Python 3.8

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(1, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

OK, END_OF_FILE, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8

HAS_SIZE, HAS_OWNER, HAS_MODE, HAS_TIMES = 1, 2, 4, 8
FOR_READ, FOR_WRITE, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32

PROTOCOL = 3
PACKET_BYTES_MAX = 256 * 1024
"""What OpenSSH takes."""
DATA_BYTES_MAX = PACKET_BYTES_MAX - 1024
HANDLES_MAX = 256
NAMES_AT_ONCE = 100

EXTENSIONS = (
    b"posix-rename@openssh.com",
    b"hardlink@openssh.com",
    b"fsync@openssh.com",
    b"lsetstat@openssh.com",
    b"expand-path@openssh.com",
    b"limits@openssh.com",
)
STATUS_OF_ERRNO = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.EACCES: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
    errno.EROFS: PERMISSION_DENIED,
}


class BadMessageError(Exception):
    """The client sent what is no request."""


class UnsupportedError(Exception):
    """A request that this server does not know."""


class Attributes:
    """Those attributes of a file that a client gave; None was not given."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.owner: tuple[int, int] | None = None
        self.mode: int | None = None
        self.times: tuple[int, int] | None = None


def apply_attributes(target: bytes | int, given: Attributes, *, is_link: bool = False) -> None:
    """Give ``given`` to a file, by its path or descriptor; with ``is_link`` to a symbolic link itself."""
    follow = not is_link
    if given.size is not None:
        os.truncate(target, given.size)
    if given.mode is not None:
        os.chmod(target, given.mode, follow_symlinks=follow)  # noqa: PTH101 - bytes or a descriptor
    if given.times is not None:
        os.utime(target, given.times, follow_symlinks=follow)
    if given.owner is not None:
        os.chown(target, *given.owner, follow_symlinks=follow)


class Fields:
    """The fields of one packet, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise BadMessageError
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self) -> int:
        """The next number, of 32 bits."""
        value: int = struct.unpack(">I", self.take(4))[0]
        return value

    def offset(self) -> int:
        """The next number of 64 bits."""
        value: int = struct.unpack(">Q", self.take(8))[0]
        return value

    def text(self) -> bytes:
        """The next string."""
        return self.take(self.number())

    def path(self) -> bytes:
        """The next string, as a path: relative ones begin in the home directory."""
        path = self.text()
        if b"\0" in path:
            raise BadMessageError
        return path or b"."

    def attributes(self) -> Attributes:
        """The next file attributes."""
        given = Attributes()
        flags = self.number()
        if flags & HAS_SIZE:
            given.size = self.offset()
        if flags & HAS_OWNER:
            given.owner = (self.number(), self.number())
        if flags & HAS_MODE:
            given.mode = self.number() & 0o7777
        if flags & HAS_TIMES:
            given.times = (self.number(), self.number())
        return given


def pack_text(data: bytes) -> bytes:
    """A string as it travels."""
    return struct.pack(">I", len(data)) + data


def pack_attributes(status: os.stat_result) -> bytes:
    """All that version 3 can say of a file."""
    flags = HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES
    times = (max(0, int(status.st_atime)) & 0xFFFFFFFF, max(0, int(status.st_mtime)) & 0xFFFFFFFF)
    return struct.pack(">IQIIIII", flags, status.st_size, status.st_uid, status.st_gid, status.st_mode, *times)


def describe(name: bytes, status: os.stat_result) -> bytes:
    """A line as of ls -l, which some clients show."""
    when = time.strftime("%b %d %H:%M", time.localtime(status.st_mtime))
    line = (
        f"{stat.filemode(status.st_mode)} {status.st_nlink:>4} {status.st_uid:<8} {status.st_gid:<8}"
        f" {status.st_size:>8} {when} "
    )
    return line.encode() + name


class Server:
    """One connection's server. ``answer`` takes a packet and returns what to send back."""

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}
        self._listings: dict[bytes, list[bytes]] = {}
        self._listed: dict[bytes, bytes] = {}
        self._handles = 0
        self._requests: dict[int, Callable[[Fields], tuple[int, bytes]]] = {
            OPEN: self._open,
            READ: self._read,
            LSTAT: lambda fields: self._attributes(os.lstat(fields.path())),
            STAT: lambda fields: self._attributes(os.stat(fields.path())),  # noqa: PTH116 - bytes, not text
            FSTAT: lambda fields: self._attributes(os.fstat(self._file(fields))),
            OPENDIR: self._open_directory,
            READDIR: self._read_directory,
            REALPATH: lambda fields: self._name(os.path.realpath(fields.path())),
            READLINK: lambda fields: self._name(os.readlink(fields.path())),  # noqa: PTH115 - bytes, not text
        }
        self._actions: dict[int | bytes, Callable[[Fields], None]] = {
            CLOSE: self._close,
            WRITE: self._write,
            SETSTAT: lambda fields: apply_attributes(fields.path(), fields.attributes()),
            FSETSTAT: lambda fields: apply_attributes(self._file(fields), fields.attributes()),
            REMOVE: lambda fields: os.unlink(fields.path()),  # noqa: PTH108 - bytes, not text
            MKDIR: self._make_directory,
            RMDIR: lambda fields: os.rmdir(fields.path()),  # noqa: PTH106 - bytes, not text
            RENAME: self._rename,
            # The draft has them the other way round; OpenSSH made a mistake once, and everybody follows it.
            SYMLINK: lambda fields: os.symlink(fields.path(), fields.path()),  # noqa: PTH211 - bytes, not text
            b"posix-rename@openssh.com": lambda fields: os.replace(fields.path(), fields.path()),  # noqa: PTH105 - bytes
            b"hardlink@openssh.com": lambda fields: os.link(fields.path(), fields.path()),
            b"fsync@openssh.com": lambda fields: os.fsync(self._file(fields)),
            b"lsetstat@openssh.com": lambda fields: apply_attributes(fields.path(), fields.attributes(), is_link=True),
        }
        self._extensions: dict[bytes, Callable[[Fields], tuple[int, bytes]]] = {
            b"expand-path@openssh.com": lambda fields: self._name(
                os.path.realpath(os.path.expanduser(fields.path()))  # noqa: PTH111 - bytes, not text
            ),
            b"limits@openssh.com": lambda _fields: self._limits(),
        }

    def answer(self, packet: bytes) -> bytes:
        """The answer to one packet. Raises BadMessageError when the connection cannot go on."""
        fields = Fields(packet)
        kind = fields.take(1)[0]
        if kind == INIT:
            extensions = b"".join(pack_text(name) + pack_text(b"1") for name in EXTENSIONS)
            return bytes((VERSION,)) + struct.pack(">I", PROTOCOL) + extensions
        number = fields.take(4)
        try:
            reply, body = self._carry_out(kind, fields)
        except OSError as error:
            code = STATUS_OF_ERRNO.get(error.errno or 0, FAILURE)
            reply, body = self._status(code, error.strerror or "failure")
        except EOFError:
            reply, body = self._status(END_OF_FILE, "end of file")
        except (UnsupportedError, NotImplementedError):  # the latter: a link's own mode, which Linux does not have
            reply, body = self._status(OP_UNSUPPORTED, "unsupported")
        except (BadMessageError, ValueError, OverflowError):
            reply, body = self._status(BAD_MESSAGE, "bad message")
        return bytes((reply,)) + number + body

    def _carry_out(self, kind: int, fields: Fields) -> tuple[int, bytes]:
        name: int | bytes = fields.text() if kind == EXTENDED else kind
        action = self._actions.get(name)
        if action is not None:
            action(fields)
            return self._status(OK, "done")
        request = self._extensions.get(name) if isinstance(name, bytes) else self._requests.get(name)
        if request is None:
            raise UnsupportedError
        return request(fields)

    @staticmethod
    def _status(code: int, text: str) -> tuple[int, bytes]:
        return STATUS, struct.pack(">I", code) + pack_text(text.encode()) + pack_text(b"")

    @staticmethod
    def _attributes(status: os.stat_result) -> tuple[int, bytes]:
        return ATTRS, pack_attributes(status)

    @staticmethod
    def _name(path: bytes) -> tuple[int, bytes]:
        return NAME, struct.pack(">I", 1) + pack_text(path) + pack_text(path) + struct.pack(">I", 0)

    @staticmethod
    def _limits() -> tuple[int, bytes]:
        limits = (PACKET_BYTES_MAX, DATA_BYTES_MAX, DATA_BYTES_MAX, HANDLES_MAX)
        return EXTENDED_REPLY, struct.pack(">QQQQ", *limits)

    def _new_handle(self) -> bytes:
        if len(self._files) + len(self._listings) >= HANDLES_MAX:
            raise OSError(errno.EMFILE, "too many open files")
        self._handles += 1
        return b"%d" % self._handles

    def _file(self, fields: Fields) -> int:
        handle = fields.text()
        if handle not in self._files:
            raise BadMessageError
        return self._files[handle]

    def _open(self, fields: Fields) -> tuple[int, bytes]:
        path, wanted, given = fields.path(), fields.number(), fields.attributes()
        writing = os.O_RDWR if wanted & FOR_READ else os.O_WRONLY
        flags = writing if wanted & FOR_WRITE else os.O_RDONLY
        for bit, flag in ((APPEND, os.O_APPEND), (CREATE, os.O_CREAT), (TRUNCATE, os.O_TRUNC), (EXCLUSIVE, os.O_EXCL)):
            if wanted & bit:
                flags |= flag
        handle = self._new_handle()
        # Not to stand still at a FIFO that nobody writes to.
        opened = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666 if given.mode is None else given.mode)
        os.set_blocking(opened, True)
        self._files[handle] = opened
        return HANDLE, pack_text(handle)

    def _close(self, fields: Fields) -> None:
        handle = fields.text()
        if handle in self._files:
            os.close(self._files.pop(handle))
        elif self._listings.pop(handle, None) is None:
            raise BadMessageError
        else:
            del self._listed[handle]

    def _read(self, fields: Fields) -> tuple[int, bytes]:
        opened, offset, count = self._file(fields), fields.offset(), min(fields.number(), DATA_BYTES_MAX)
        try:
            data = os.pread(opened, count, offset)
        except OSError as error:
            if error.errno != errno.ESPIPE:  # a device or pipe has no places in it
                raise
            data = os.read(opened, count)
        if not data:
            raise EOFError
        return DATA, pack_text(data)

    def _write(self, fields: Fields) -> None:
        opened, offset, data = self._file(fields), fields.offset(), fields.text()
        try:
            while data:
                written = os.pwrite(opened, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            if error.errno != errno.ESPIPE:
                raise
            while data:
                data = data[os.write(opened, data) :]

    def _open_directory(self, fields: Fields) -> tuple[int, bytes]:
        path = fields.path()
        handle = self._new_handle()
        self._listings[handle] = [b".", b"..", *os.listdir(path)]  # noqa: PTH208 - bytes, not text
        self._listed[handle] = path
        return HANDLE, pack_text(handle)

    def _read_directory(self, fields: Fields) -> tuple[int, bytes]:
        handle = fields.text()
        if handle not in self._listings:
            raise BadMessageError
        names, self._listings[handle] = (
            self._listings[handle][:NAMES_AT_ONCE],
            self._listings[handle][NAMES_AT_ONCE:],
        )
        entries = []
        for name in names:
            try:
                status = os.lstat(os.path.join(self._listed[handle], name))  # noqa: PTH118 - bytes, not text
            except OSError:
                continue  # it went away meanwhile
            entries.append(pack_text(name) + pack_text(describe(name, status)) + pack_attributes(status))
        if not names:
            raise EOFError
        return NAME, struct.pack(">I", len(entries)) + b"".join(entries)

    @staticmethod
    def _make_directory(fields: Fields) -> None:
        path, given = fields.path(), fields.attributes()
        os.mkdir(path, 0o777 if given.mode is None else given.mode)  # noqa: PTH102 - bytes, not text

    @staticmethod
    def _rename(fields: Fields) -> None:
        """Version 3 replaces nothing: a file gets a new name, then loses the old one. Directories are renamed."""
        source, target = fields.path(), fields.path()
        if stat.S_ISREG(os.lstat(source).st_mode):
            os.link(source, target, follow_symlinks=False)
            os.unlink(source)  # noqa: PTH108 - bytes, not text
        elif os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it exists")
        else:
            os.rename(source, target)  # noqa: PTH104 - bytes, not text


def read_exactly(descriptor: int, count: int) -> bytes:
    """``count`` bytes. Raises EOFError when they do not come."""
    parts = []
    while count:
        part = os.read(descriptor, count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    while data:
        data = data[os.write(descriptor, data) :]


def serve(source: int, sink: int) -> None:
    """Answer the packets that come from ``source`` until its end."""
    server = Server()
    while True:
        try:
            (length,) = struct.unpack(">I", read_exactly(source, 4))
            if not 1 <= length <= PACKET_BYTES_MAX:
                raise BadMessageError
            reply = server.answer(read_exactly(source, length))
        except EOFError:
            return
        write_whole(sink, struct.pack(">I", len(reply)) + reply)


if __name__ == "__main__":
    try:
        serve(0, 1)
    except (BadMessageError, BrokenPipeError):
        sys.exit(1)
