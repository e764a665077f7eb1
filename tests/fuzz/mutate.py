"""Mutations for short runs, which need no engine: the same for the same seed."""

from collections.abc import Iterator, Sequence
from random import Random

_NUMBERS = (
    b"\0",
    b"\1",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\xc0\x0c",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
)
_WORDS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"/", b"..", b"=", b"%"),
    *(b"Host: a.example\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"0\r\n\r\n", b"\r\n\r\n"),
    *(
        b"HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
        b"\x16\x03\x01",
        b"a.example",
        b"\xc3\xa9",
        b"\xe2\x84\xaa",
    ),
)
_CHANGES_MAX = 6


def mutations(corpus: Sequence[bytes], seed: str, count: int, bytes_max: int) -> Iterator[bytes]:
    """``count`` inputs near those of ``corpus``."""
    random = Random(seed)
    for _ in range(count):
        data = bytearray(random.choice(corpus))
        for _ in range(random.randint(1, _CHANGES_MAX)):
            _change(data, corpus, random)
        yield bytes(data[:bytes_max])


def _change(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    at = random.randint(0, len(data))
    match random.randrange(7):
        case 0 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 1 if at < len(data):
            data[at] = random.randrange(256)
        case 2:
            data[at:at] = random.choice(_WORDS)
        case 3:
            number = random.choice(_NUMBERS)
            data[at : at + len(number)] = number
        case 4:
            del data[at : at + random.randint(1, 8)]
        case 5:
            data[at:at] = data[at : at + random.randint(1, 32)]
        case _:
            other = random.choice(corpus)
            start = random.randint(0, len(other))
            data[at:] = other[start:]
