"""A file and the path it is for, read out of a multipart form (RFC 7578) while the form arrives."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from outgate.api.errors import ClientGoneError
from outgate.control.errors import TooLargeError
from outgate.control.files import PATH_LENGTH_MAX
from outgate.control.pace import Pace
from outgate.errors import InvalidValueError

EARLY_BYTES_MAX: Final = 1024 * 1024
"""Of a file that comes before its path: it has to wait in memory until it is known where it goes."""
_PATH, _FILE = "path", "file"
_FORM: Final = b"multipart/form-data"


@dataclass(frozen=True, slots=True)
class Upload:
    """Where the file goes, and its bytes; these raise when the form does not come to its end."""

    path: str
    data: AsyncIterator[bytes]


async def read_upload(request: Request, bytes_max: int) -> Upload:
    """The upload whose beginning has arrived.

    Raises InvalidValueError, ClientGoneError, TransferStalledError; the bytes also TooLargeError beyond ``bytes_max``.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != _FORM or not boundary:
        message = "An upload is a form: send Content-Type multipart/form-data with the fields path and file."
        raise InvalidValueError(message, field=_FILE)
    form = _Form(boundary)
    pace, chunks = Pace(), aiter(request.stream())
    while form.path is None or not form.has_file:
        chunk = await _next_chunk(pace, chunks)
        if chunk is None:
            form.check_whole()
            raise InvalidValueError("This is required.", field=_PATH if form.path is None else _FILE)
        form.feed(chunk)
        if form.path is None and form.waiting_bytes > EARLY_BYTES_MAX:
            message = f"Send the field path before a file of more than {EARLY_BYTES_MAX} bytes."
            raise InvalidValueError(message, field=_PATH)
    return Upload(form.path, _file_bytes(form, pace, chunks, bytes_max))


async def _file_bytes(
    form: "_Form", pace: Pace, chunks: AsyncIterator[bytes], bytes_max: int
) -> AsyncGenerator[bytes, None]:
    size = 0
    while True:
        while form.pieces:
            piece = form.pieces.popleft()
            size += len(piece)
            if size > bytes_max:
                raise TooLargeError(f"The file is longer than {bytes_max:,} bytes, the most that is taken.")
            yield piece
        chunk = await _next_chunk(pace, chunks)
        if chunk is None:
            # Over HTTP/2 a stream that was reset looks like one that ended: the form's own end is what counts.
            form.check_whole()
            return
        form.feed(chunk)


async def _next_chunk(pace: Pace, chunks: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await pace.next(chunks)
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection while sending.") from None


@dataclass(slots=True)
class _Form:
    """The form as far as it has arrived. ``pieces``: bytes of the file, for somebody to take away."""

    boundary: bytes
    path: str | None = None
    has_file: bool = False
    pieces: deque[bytes] = field(default_factory=deque)
    _is_whole: bool = False
    _name: str = ""
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _path: bytearray = field(default_factory=bytearray)
    _parser: MultipartParser = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._parser = MultipartParser(
                self.boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_data,
                    "on_part_data": self._take_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None

    @property
    def waiting_bytes(self) -> int:
        """Of the file, in memory."""
        return sum(map(len, self.pieces))

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises InvalidValueError."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from None

    def check_whole(self) -> None:
        """Raise InvalidValueError unless the form's end has arrived."""
        if not self._is_whole:
            message = "The form broke off before its end; send the upload again."
            raise InvalidValueError(message, field=_FILE, code="upload_incomplete")

    def _begin_part(self) -> None:
        self._name = ""

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _begin_data(self) -> None:
        if self._name == _FILE:
            if self.has_file:
                raise InvalidValueError("One upload has one file.", field=_FILE)
            self.has_file = True
        if self._name == _PATH and self.path is not None:
            raise InvalidValueError("One upload has one path.", field=_PATH)

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE:
            self.pieces.append(data[start:end])
        elif self._name == _PATH:
            self._path += data[start:end]
            if len(self._path) > PATH_LENGTH_MAX:
                raise InvalidValueError(f"A path has at most {PATH_LENGTH_MAX} bytes.", field=_PATH)

    def _end_part(self) -> None:
        if self._name == _PATH:
            try:
                self.path = self._path.decode()
            except UnicodeDecodeError:
                raise InvalidValueError("A path is text in UTF-8.", field=_PATH) from None

    def _end(self) -> None:
        self._is_whole = True


def _malformed(error: FormParserError) -> InvalidValueError:
    return InvalidValueError(f"The form cannot be read: {error}.", field=_FILE, code="invalid_form")
