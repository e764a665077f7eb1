"""A tar archive as a stream of entries, from a source that is not trusted.

Reads what image builders write: ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU's long names and large
numbers. The standard library's tarfile keeps every entry in memory and reads headers of any claimed
size at once; here nothing is held but one entry, and every header has a bound. Sparse files are refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from outgate.runtime.base import SandboxError

BLOCK_BYTES: Final = 512
_HEADER_BYTES_MAX: Final = 1 << 20
"""Of all extended headers of one entry: a name (4 KiB at most, PATH_MAX) and extended attributes (64 KiB each)."""
_RECORDS_MAX: Final = 256
"""Values that an entry's extended headers may hold; a file has a handful of attributes. They are gone through for each
entry, and those of a global header are every entry's."""
_KNOWN_KEYS: Final = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
_KNOWN_PREFIXES: Final = (b"SCHILY.xattr.", b"GNU.sparse")
_NUMBER_MAX: Final = 1 << 62


class TarError(SandboxError):
    """The bytes are not a tar archive that can be taken."""

    code = "bad_archive"


class ByteSource(Protocol):
    """Where bytes come from, in order."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end only."""


class TarKind(Enum):
    """What an entry is."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS: Final = {
    b"\0": TarKind.FILE,
    b"0": TarKind.FILE,
    b"1": TarKind.HARD_LINK,
    b"2": TarKind.SYMBOLIC_LINK,
    b"3": TarKind.CHARACTER_DEVICE,
    b"4": TarKind.BLOCK_DEVICE,
    b"5": TarKind.DIRECTORY,
    b"6": TarKind.FIFO,
    b"7": TarKind.FILE,
}


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry as the archive has it, unjudged. Names are bytes: no encoding is promised.

    ``offset`` is where its data begin in the archive. ``attributes``: extended attributes by name.
    """

    name: bytes
    kind: TarKind
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_s: int
    link: bytes
    offset: int
    attributes: Mapping[str, bytes] = field(default_factory=dict)


class TarStream:
    """Iterate for the entries; read an entry's data by :meth:`read_data` before going on to the next one.

    ``seek`` moves ``source`` to an offset, where it can be moved; data that nobody reads are then not read.
    """

    def __init__(self, source: ByteSource, seek: Callable[[int], object] | None = None) -> None:
        self._source = source
        self._seek = seek
        self._offset = 0
        self._data_left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """The entries in order. Raises :class:`TarError` where the bytes stop making sense."""
        extended: dict[bytes, bytes] = {}
        common: dict[bytes, bytes] = {}
        while (header := self._read_header()) is not None:
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in b"xgLK":
                data = self._read_extended(size)
                if kind == b"g":
                    _take_records(common, _parse_pax(data))
                elif kind == b"x":
                    _take_records(extended, _parse_pax(data))
                else:
                    _take_records(extended, {b"path" if kind == b"L" else b"linkpath": data.rstrip(b"\0")})
                continue
            entry = self._entry(header, {**common, **extended}, size)
            extended = {}
            self._begin_data(entry.size_bytes)
            yield entry
            self._skip_data()

    def read_data(self, size: int) -> bytes:
        """Up to ``size`` bytes of the current entry's data; none at its end."""
        if self._data_left == 0:
            return b""
        block = self._read_exactly(min(size, self._data_left))
        self._data_left -= len(block)
        return block

    def _read_header(self) -> bytes | None:
        """The next header; None at the archive's end (two empty blocks, or its bytes' end between entries)."""
        block = self._source.read(BLOCK_BYTES)
        self._offset += len(block)
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            block += self._read_exactly(BLOCK_BYTES - len(block))
        if block == bytes(BLOCK_BYTES):
            return None
        # The checksum is taken with its own field as blanks; some old writers summed signed bytes.
        claimed = _octal(block[148:156])
        unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
        signed = unsigned - 256 * sum(byte >= 0x80 for byte in block[:148] + block[156:])
        if claimed not in (unsigned, signed):
            raise TarError("This is not a tar archive, or it is damaged: a header's checksum is wrong.")
        return block

    def _entry(self, header: bytes, extended: Mapping[bytes, bytes], size: int) -> TarEntry:
        kind = _KINDS.get(header[156:157])
        if kind is None or any(key.startswith(b"GNU.sparse") for key in extended):
            raise TarError(f"The archive holds an entry of a kind that is not supported ({header[156:157]!r}).")
        name = _text(header[:100])
        if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
            name = prefix + b"/" + name
        if b"size" in extended:
            size = _decimal(extended[b"size"])
        # Links and directories carry no data, whatever their size says (POSIX.1, ustar).
        if kind is not TarKind.FILE:
            size = 0
        return TarEntry(
            name=extended.get(b"path", name),
            kind=kind,
            mode=_number(header[100:108]) & 0o7777,
            uid=_decimal(extended[b"uid"]) if b"uid" in extended else _number(header[108:116]),
            gid=_decimal(extended[b"gid"]) if b"gid" in extended else _number(header[116:124]),
            size_bytes=size,
            mtime_s=_seconds(extended[b"mtime"]) if b"mtime" in extended else _number(header[136:148]),
            link=extended.get(b"linkpath", _text(header[157:257])),
            offset=self._offset,
            attributes={
                key.removeprefix(b"SCHILY.xattr.").decode("utf-8", "replace"): value
                for key, value in extended.items()
                if key.startswith(b"SCHILY.xattr.")
            },
        )

    def _read_extended(self, size: int) -> bytes:
        if size > _HEADER_BYTES_MAX:
            raise TarError(f"The archive holds a header of {size} bytes; {_HEADER_BYTES_MAX} is the most.")
        self._begin_data(size)
        data = self._read_exactly(size)
        self._data_left = 0
        self._skip_data()
        return data

    def _begin_data(self, size: int) -> None:
        self._data_left = size
        self._padding = -size % BLOCK_BYTES

    def _skip_data(self) -> None:
        if self._seek is not None:
            self._offset += self._data_left + self._padding
            self._seek(self._offset)
            self._data_left = self._padding = 0
            return
        while self.read_data(1 << 16):
            pass
        self._read_exactly(self._padding)
        self._padding = 0

    def _read_exactly(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._source.read(size)
            if not part:
                raise TarError("The archive ends in the middle of an entry.")
            parts.append(part)
            size -= len(part)
            self._offset += len(part)
        return b"".join(parts)


def _text(field_: bytes) -> bytes:
    return field_.partition(b"\0")[0]


def _octal(field_: bytes) -> int:
    digits = field_.strip(b" \0").partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if any(digit not in b"01234567" for digit in digits):
        raise TarError("This is not a tar archive, or it is damaged: a number is not one.")
    return int(digits, 8)


def _number(field_: bytes) -> int:
    """Octal digits, or GNU's binary numbers, which have the highest bit set. Negative ones count as 0."""
    if field_[0] == 0xFF:
        return 0
    is_binary = field_[0] & 0x80
    value = int.from_bytes(field_, "big") - (0x80 << 8 * (len(field_) - 1)) if is_binary else _octal(field_)
    if value > _NUMBER_MAX:
        raise TarError("The archive is damaged: a number is too large.")
    return value


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise TarError("The archive is damaged: an extended number is not one.")
    return int(text)


def _seconds(text: bytes) -> int:
    """Whole seconds of a pax time, which may have a sign and a fraction; times before 1970 count as 0."""
    whole = text.partition(b".")[0]
    return 0 if whole.startswith(b"-") else _decimal(whole)


def _take_records(known: dict[bytes, bytes], records: Mapping[bytes, bytes]) -> None:
    """Add those of ``records`` that mean something here. Headers may follow each other without end or entry."""
    known.update(
        (key, value) for key, value in records.items() if key in _KNOWN_KEYS or key.startswith(_KNOWN_PREFIXES)
    )
    if len(known) > _RECORDS_MAX or sum(map(len, known.values())) + sum(map(len, known)) > _HEADER_BYTES_MAX:
        raise TarError(
            f"The archive's extended headers hold more than {_RECORDS_MAX} values or {_HEADER_BYTES_MAX} bytes."
        )


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form ``LENGTH KEY=VALUE`` and a newline, LENGTH counting all of it (POSIX.1-2001)."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position] != 0:
        length_text, blank, _ = data[position : position + 20].partition(b" ")
        if not blank or not length_text.isdigit():
            raise TarError("The archive is damaged: an extended header has no length.")
        end = position + int(length_text)
        key, equals, value = data[position + len(length_text) + 1 : end - 1].partition(b"=")
        if end > len(data) or int(length_text) <= len(length_text) + 1 or not equals or data[end - 1 : end] != b"\n":
            raise TarError("The archive is damaged: an extended header's length is wrong.")
        records[key] = value
        position = end
    return records
