"""What programs in a devbox leave for the host to read: words, statuses, output, names of processes, notes of builds."""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path, PurePosixPath

from fuzz.cuts import ways_to_cut
from outgate.agent.build_dockerfile import find_reason as find_build_reason
from outgate.control.output_streams import OutputPiece, decode_pieces
from outgate.model.executions import FileProblem
from outgate.runtime.base import EXIT_STATUS_KILLED, SandboxError
from outgate.runtime.box_file_scripts import describe_problem, find_reason, judge_reason
from outgate.runtime.box_helper import BoxHelper, StartedHelper
from outgate.runtime.build_bases import data_file_name
from outgate.runtime.build_images import _read_built
from outgate.runtime.build_stage import STORAGE
from outgate.runtime.execution_files import ExecutionFiles
from outgate.runtime.output import read_last_lines
from outgate.runtime.proc_stat import parse_stat

_WORD_LENGTH_MAX = 2 * 64
"""What two reads can hold."""
_REASON_LENGTH_MAX = 200
_BUILD_REASON_LENGTH_MAX = 1000
_IMAGE_ID = "a" * 64


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="outgate-fuzz-"))
    atexit.register(shutil.rmtree, place)
    return place


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def read_words(data: bytes) -> None:
    """Lines on the status descriptor of a program that reads or writes a file."""
    words = _loop().run_until_complete(_read_words(data))
    assert all(len(word) <= _WORD_LENGTH_MAX and "\n" not in word for word in words)
    said = data[: data.rfind(b"\n") + 1].decode("ascii", "replace").split("\n")[:-1]
    assert words == said[: len(words)], "a word that was not said"


async def _read_words(data: bytes) -> list[str]:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(writing, data)
    os.close(writing)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    helper = BoxHelper(StartedHelper(None, None, reading, nothing, os.dup(nothing)))
    words = []
    try:
        while word := await helper.read_word(1.0):
            words.append(word)
    finally:
        await helper.aclose()
    return words


def explain_complaint(data: bytes) -> None:
    complaint = data.decode("utf-8", "replace")
    reason = find_reason(complaint)
    assert len(reason) <= _REASON_LENGTH_MAX
    sentence = describe_problem(judge_reason(reason), "/x", reason)
    assert "\n" not in sentence
    assert sentence.isprintable()
    assert judge_reason(reason) in FileProblem
    for line in complaint.split("\n"):
        because = find_build_reason(line)
        assert because is None or len(because) <= _BUILD_REASON_LENGTH_MAX


def read_output(data: bytes) -> None:
    """The first byte says how many lines are wanted, of how many bytes at most."""
    if not data:
        return
    wanted, bytes_max, written = data[0] % 8, 1 + data[0] * 3, data[1:]
    file = _place() / "output"
    file.write_bytes(written)
    found = read_last_lines(file, wanted, bytes_max)
    assert len(found.text) <= bytes_max
    assert found.text.removesuffix("\n").count("\n") < max(wanted, 1)
    if wanted == 0:
        assert found.text == ""
        return
    lines = written.splitlines(keepends=True) if b"\r" not in written else None
    if lines is not None and not set(written) & set(b"\x0b\x0c\x1c\x1d\x1e\x85") and len(written) <= bytes_max:
        assert found.text == b"".join(lines[-wanted:]).decode(errors="replace")
        assert found.truncated is (len(lines) > wanted)


def read_status(data: bytes) -> None:
    files = ExecutionFiles(_place())
    files.status_file.write_bytes(data)
    status = files.read_status()
    assert status is None or 0 <= status <= max(255, EXIT_STATUS_KILLED)
    if status not in (None, EXIT_STATUS_KILLED):
        assert int(data) == status


def read_text(data: bytes) -> None:
    """Output as text: whatever its pieces, the same characters, and each piece says where to go on."""
    expected = data.decode("utf-8", "replace")
    for pieces in ways_to_cut(data):
        said = _loop().run_until_complete(_decode(pieces, 0))
        assert "".join(piece.text for piece in said) == expected
        for at, piece in enumerate(said[:-1]):
            rest = "".join(later.text for later in said[at + 1 :])
            assert data[piece.end :].decode("utf-8", "replace") == rest, "who reconnects misses or repeats something"


async def _decode(pieces: tuple[bytes, ...], offset: int) -> list[OutputPiece]:
    async def give() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [piece async for piece in decode_pieces(give(), offset)]


def read_process(data: bytes) -> None:
    """Any name a process gave itself (15 bytes, no NUL): the fields behind it are the kernel's."""
    name = data.replace(b"\0", b"")[:15]
    fields = [b"R", b"1", b"2", b"3", *(b"%d" % number for number in range(4, 50))]
    read = parse_stat(b"12 (" + name + b") " + b" ".join(fields) + b"\n")
    assert read == [field.decode() for field in fields]


def read_build_notes(data: bytes) -> None:
    """The notes of a build's storage, one document each; the first byte says which of them is fuzzed."""
    own = _place() / "build"
    notes = own / STORAGE / "overlay-images"
    layers = own / STORAGE / "overlay-layers"
    config = notes / _IMAGE_ID
    for directory in (config, layers):
        directory.mkdir(parents=True, exist_ok=True)
    documents = {
        notes / "images.json": b'[{"id":"%b","names":["localhost/outgate/result:latest"],"layer":"%b"}]'
        % (_IMAGE_ID.encode(), b"b" * 64),
        layers / "layers.json": b'[{"id":"%b"}]' % (b"b" * 64),
        config / _configuration_name(): b'{"rootfs":{"diff_ids":[]}}',
    }
    chosen = list(documents)[(data[0] if data else 0) % len(documents)]
    for file, text in documents.items():
        file.write_bytes(data[1:] if file == chosen else text)
    try:
        built = _read_built(own, ())
    except SandboxError:
        return
    finally:
        shutil.rmtree(own)
    for layer in built.layer_ids:
        assert PurePosixPath(layer).name == layer
        assert len(layer) == len(_IMAGE_ID)
    assert not any("\0" in name + value for name, value in built.environment.items())


def _configuration_name() -> str:
    return data_file_name(f"sha256:{_IMAGE_ID}")
