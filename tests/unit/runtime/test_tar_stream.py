"""The tar reader against the standard library's writer, and against bytes that are no archive."""

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.runtime.tar_stream import TarEntry, TarError, TarKind, TarStream

Fill = Callable[[tarfile.TarFile], None]


def archive(fill: Fill, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        fill(tar)
    return buffer.getvalue()


def file_entry(name: str, data: bytes = b"", **settings: object) -> Fill:
    def fill(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in settings.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data))

    return fill


def read_all(data: bytes) -> list[tuple[TarEntry, bytes]]:
    stream = TarStream(io.BytesIO(data))
    entries = []
    for entry in stream:
        content = b""
        while block := stream.read_data(1000):
            content += block
        entries.append((entry, content))
    return entries


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(
    names=st.lists(st.text("abc/.é", min_size=1, max_size=200), max_size=4),
    data=st.binary(max_size=1500),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 65535),
    mtime=st.integers(0, 2**31),
)
def test_reads_what_the_standard_library_writes(  # noqa: PLR0917 - hypothesis passes them by name
    form: int, names: list[str], data: bytes, mode: int, uid: int, mtime: int
) -> None:
    buffer = io.BytesIO()
    expected = []
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in names:
            try:
                file_entry(name, data, mode=mode, uid=uid, mtime=mtime)(tar)
            except ValueError:
                continue  # ustar cannot hold every long name
            expected.append((name.encode(), data, mode, uid, mtime))
    read = [(e.name, content, e.mode, e.uid, e.mtime_s) for e, content in read_all(buffer.getvalue())]
    assert read == expected


def test_kinds_and_links() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name, kind, link in (
            ("d", tarfile.DIRTYPE, ""),
            ("s", tarfile.SYMTYPE, "../target"),
            ("h", tarfile.LNKTYPE, "d/" + "x" * 200),
            ("c", tarfile.CHRTYPE, ""),
            ("b", tarfile.BLKTYPE, ""),
            ("p", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)

    assert [(e.name, e.kind, e.link) for e, _ in read_all(archive(fill))] == [
        (b"d/", TarKind.DIRECTORY, b""),
        (b"s", TarKind.SYMBOLIC_LINK, b"../target"),
        (b"h", TarKind.HARD_LINK, b"d/" + b"x" * 200),
        (b"c", TarKind.CHARACTER_DEVICE, b""),
        (b"b", TarKind.BLOCK_DEVICE, b""),
        (b"p", TarKind.FIFO, b""),
    ]


def test_numbers_beyond_octal() -> None:
    fill = file_entry("big", uid=3_000_000, mtime=2**40)
    ((entry, _),) = read_all(archive(fill, tarfile.GNU_FORMAT))
    assert (entry.uid, entry.mtime_s) == (3_000_000, 2**40)


def test_extended_attributes() -> None:
    fill = file_entry("f", pax_headers={"SCHILY.xattr.security.capability": "cap", "comment": "x"})
    ((entry, _),) = read_all(archive(fill))
    assert entry.attributes == {"security.capability": b"cap"}


def test_data_that_nobody_reads_are_skipped_and_offsets_point_at_data() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name in ("a", "b"):
            file_entry(name, name.encode() * 300)(tar)

    data = archive(fill)
    entries = list(TarStream(io.BytesIO(data)))
    assert [data[e.offset : e.offset + e.size_bytes] for e in entries] == [b"a" * 300, b"b" * 300]
    source = io.BytesIO(data)
    assert list(TarStream(source, source.seek)) == entries


@given(st.binary(max_size=3000))
def test_any_bytes_are_entries_or_a_tar_error(data: bytes) -> None:
    try:
        read_all(data)
    except TarError as error:
        assert error.message  # noqa: PT017 - either outcome is right


@given(st.integers(0, 2100), st.integers(0, 255), st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
def test_any_damage_gives_entries_or_a_tar_error(position: int, value: int, form: int) -> None:
    data = bytearray(archive(file_entry("é" * 120, b"content", uid=70_000_000), form))
    data[position % len(data)] = value
    try:
        read_all(bytes(data))
    except TarError as error:
        assert error.message  # noqa: PT017 - either outcome is right


def test_any_cut_inside_an_entry_is_an_error() -> None:
    data = archive(file_entry("f", b"x" * 600))
    for length in range(1, 512 + 1024):
        with pytest.raises(TarError):
            read_all(data[:length])


@pytest.mark.parametrize(
    ("complaint", "data"),
    [
        ("number is not one", b"\x01" * 512),
        ("checksum is wrong", b"0" * 512),
        ("a header of 1048577 bytes", archive(file_entry("f", b"\0" * 1_048_577, type=tarfile.GNUTYPE_LONGNAME))),
        ("not supported", archive(file_entry("f", b"", type=tarfile.GNUTYPE_SPARSE))),
        ("not supported", archive(file_entry("f", pax_headers={"GNU.sparse.major": "1"}))),
        ("length is wrong", archive(file_entry("f", b"99 path=x\n", type=tarfile.XHDTYPE))),
        ("has no length", archive(file_entry("f", b"path=x\n", type=tarfile.XHDTYPE))),
        ("number is not one", archive(file_entry("f", pax_headers={"uid": "-1"}))),
    ],
    ids=[
        "no archive",
        "no archive but digits",
        "huge header",
        "gnu sparse",
        "pax sparse",
        "wrong length",
        "no length",
        "negative id",
    ],
)
def test_archives_that_are_refused(complaint: str, data: bytes) -> None:
    with pytest.raises(TarError, match=complaint):
        read_all(data)


def extended_header(kind: bytes, key: str, value: str) -> bytes:
    length = len(f" {key}={value}\n")
    while len(f"{length} {key}={value}\n") != length:
        length = len(f"{length} {key}={value}\n")
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, length
    return info.tobuf(tarfile.USTAR_FORMAT) + f"{length} {key}={value}\n".encode().ljust(-(-length // 512) * 512, b"\0")


@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_extended_headers_that_follow_each_other_without_end_are_refused(kind: bytes) -> None:
    """Each is small; all together would be held in memory, and gone through for each entry."""
    headers = b"".join(extended_header(kind, f"SCHILY.xattr.user.{number}", "v") for number in range(1000))
    with pytest.raises(TarError, match="more than 256 values"):
        read_all(headers + archive(file_entry("a")))


def test_extended_headers_of_no_meaning_are_not_kept() -> None:
    headers = b"".join(extended_header(b"g", f"comment.{number}", "v") for number in range(1000))
    ((entry, _),) = read_all(headers + archive(file_entry("a")))
    assert entry.name == b"a"
