"""The SFTP server that is sent into devboxes, packet by packet. (Whole clients are in test_ssh.py.)"""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.api.in_devbox import sftp_server as sftp
from outgate.api.sftp_program import SFTP_COMMAND


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Relative paths out of random bytes begin here."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ask(server: sftp.Server, kind: int, body: bytes) -> tuple[int, bytes]:
    """The answer's kind and what follows the request's number."""
    reply = server.answer(bytes((kind,)) + b"\0\0\0\x07" + body)
    assert reply[1:5] == b"\0\0\0\x07"
    return reply[0], reply[5:]


def status(server: sftp.Server, kind: int, body: bytes) -> int:
    reply, rest = ask(server, kind, body)
    assert reply == sftp.STATUS, (reply, rest)
    code: int = struct.unpack(">I", rest[:4])[0]
    return code


def test_the_greeting_names_version_and_extensions() -> None:
    reply = sftp.Server().answer(bytes((sftp.INIT,)) + struct.pack(">I", 6))
    assert reply[:5] == bytes((sftp.VERSION,)) + struct.pack(">I", 3)
    assert b"posix-rename@openssh.com" in reply


def test_errors_have_their_codes(tmp_path: Path) -> None:
    server = sftp.Server()
    here = os.fsencode(tmp_path)
    (tmp_path / "file").write_text("x")
    missing, nothing = text(here + b"/none"), struct.pack(">I", 0)
    assert status(server, sftp.STAT, missing) == sftp.NO_SUCH_FILE
    assert status(server, sftp.OPEN, missing + struct.pack(">I", sftp.FOR_READ) + nothing) == sftp.NO_SUCH_FILE
    assert status(server, sftp.RMDIR, text(here + b"/file")) == sftp.NO_SUCH_FILE  # not a directory
    assert status(server, sftp.MKDIR, text(here + b"/file") + nothing) == sftp.FAILURE
    assert status(server, sftp.READ, text(b"9") + struct.pack(">QI", 0, 1)) == sftp.BAD_MESSAGE
    assert status(server, sftp.STAT, text(b"a\0b")) == sftp.BAD_MESSAGE
    assert status(server, sftp.STAT, struct.pack(">I", 99) + b"short") == sftp.BAD_MESSAGE
    assert status(server, 42, b"") == sftp.OP_UNSUPPORTED
    assert status(server, sftp.EXTENDED, text(b"dance@example.com")) == sftp.OP_UNSUPPORTED
    assert status(server, sftp.RENAME, text(here + b"/file") + text(here + b"/file")) == sftp.FAILURE
    assert (tmp_path / "file").read_text() == "x"


def test_a_fifo_does_not_hold_it_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    body = text(os.fsencode(tmp_path / "fifo")) + struct.pack(">II", sftp.FOR_WRITE, 0)
    assert status(sftp.Server(), sftp.OPEN, body) == sftp.FAILURE


def test_handles_are_bounded_and_come_back(tmp_path: Path) -> None:
    server = sftp.Server()
    body = text(os.fsencode(tmp_path))
    handles = []
    for _ in range(sftp.HANDLES_MAX):
        reply, rest = ask(server, sftp.OPENDIR, body)
        assert reply == sftp.HANDLE
        handles.append(rest)
    assert status(server, sftp.OPENDIR, body) == sftp.FAILURE
    assert status(server, sftp.CLOSE, handles[0]) == sftp.OK
    assert ask(server, sftp.OPENDIR, body)[0] == sftp.HANDLE
    assert status(server, sftp.CLOSE, handles[0]) == sftp.BAD_MESSAGE


@given(
    st.sampled_from([sftp.OPEN, sftp.READ, sftp.WRITE, sftp.LSTAT, sftp.FSTAT, sftp.READDIR, sftp.EXTENDED, 77]),
    st.binary(),
)
def test_no_packet_breaks_it(kind: int, body: bytes) -> None:
    # None of these kinds can change a file that exists: a path out of random bytes does not.
    server = sftp.Server()
    reply = server.answer(bytes((kind,)) + b"\0\0\0\x01" + body.replace(b"rename", b""))
    assert reply[0] in (sftp.STATUS, sftp.ATTRS, sftp.NAME, sftp.EXTENDED_REPLY)


@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack(">I", 0), struct.pack(">I", 1 << 30), b"\0\0\0\x05\x03"])
def test_a_broken_stream_ends_it(sent: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-I", sftp.__file__], input=sent, capture_output=True, timeout=20, check=False
    )
    assert done.returncode in (0, 1)
    assert done.stderr == b""


def test_it_fits_into_one_argument() -> None:
    assert len(SFTP_COMMAND.encode()) < 64 * 1024  # execve(2) takes 128 KiB, and quoting happens once more inside
