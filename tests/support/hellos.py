"""Bytes of ClientHellos, well-formed and otherwise, as clients put them on the wire."""


def _prefixed(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _prefixed(data, 2)


def server_name(name: bytes, *, name_type: int = 0) -> bytes:
    """The SNI extension with one entry."""
    return extension(0, _prefixed(bytes([name_type]) + _prefixed(name, 2), 2))


def hello_message(extensions: bytes | None, *, session_id: bytes = b"s" * 32) -> bytes:
    """The handshake message, without records. No extensions block at all when ``extensions`` is None."""
    body = b"\x03\x03" + b"r" * 32 + _prefixed(session_id, 1) + _prefixed(b"\x13\x01\x13\x02", 2) + b"\x01\x00"
    if extensions is not None:
        body += _prefixed(extensions, 2)
    return b"\x01" + _prefixed(body, 3)


def records(message: bytes, *, fragment: int = 1 << 14, version: bytes = b"\x03\x01") -> bytes:
    """``message`` in TLS handshake records of at most ``fragment`` bytes."""
    return b"".join(
        b"\x16" + version + _prefixed(message[start : start + fragment], 2)
        for start in range(0, len(message), fragment)
    )


def hello(name: str | None, *, fragment: int = 1 << 14, pad: int = 0) -> bytes:
    """What a client sends that wants ``name``; ``pad`` bytes longer, as post-quantum key shares make it."""
    extensions = (b"" if name is None else server_name(name.encode())) + extension(0x0A0A, b"")
    if pad:
        extensions += extension(51, b"k" * pad)
    return records(hello_message(extensions), fragment=fragment)
