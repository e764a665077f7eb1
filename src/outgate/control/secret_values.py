"""Values that must not be read off a disk: sealed and opened here, under the key of the installation.

AES-256-GCM with a fresh 96-bit nonce for each value (NIST SP 800-38D §8.2.2: safe for 2^32 values under one key).
What a value belongs to is authenticated with it, so that nobody who can write to the database can move one
secret's value to another. The same key file, by another derivation (RFC 5869), signs URLs that need no API key.
"""

import base64
import binascii
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from outgate.errors import OutgateError, SettingError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FINGERPRINT_CHARACTERS: Final = 16
_FILE_BYTES_MAX: Final = 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class SealedValueError(OutgateError):
    """A stored value cannot be opened: it was sealed under another key, or tampered with."""

    code = "secret_unreadable"


class KeyRing:
    """The keys derived from one secret. Its representation shows none of them."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, this one {len(secret)}")
        self._cipher = AESGCM(_derive(secret, b"outgate values"))
        self._signing = _derive(secret, b"outgate signatures")
        self.fingerprint = _derive(secret, b"outgate fingerprint").hex()[:_FINGERPRINT_CHARACTERS]
        """Tells this key from others and nothing else about it."""

    @classmethod
    def generate(cls) -> Self:
        """A new key that is written down nowhere."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def seal(self, value: str, belongs_to: str) -> bytes:
        """``value``, encrypted; only :meth:`open` with the same ``belongs_to`` gives it back."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), belongs_to.encode())

    def open(self, sealed: bytes, belongs_to: str) -> str:
        """The value that was sealed. Raises SealedValueError."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], belongs_to.encode()).decode()
        except (InvalidTag, ValueError):
            message = f"The value of {belongs_to} cannot be opened: it was stored under another key, or changed."
            raise SealedValueError(message) from None

    def sign(self, *parts: str) -> bytes:
        """32 bytes that only a holder of the key can make for these ``parts``, in this order."""
        # JSON-like framing by lengths: no two lists of parts give the same message.
        message = b"".join(b"%d:%b" % (len(encoded), encoded) for encoded in map(str.encode, parts))
        return hmac.digest(self._signing, message, "sha256")


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret)


def read_key_file(path: Path) -> KeyRing | None:
    """The keys of the file, or None when there is none. Raises SettingError for one that cannot be used."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingError(f"{path}: the key of secrets cannot be read by the api's user: {error.strerror}.") from None
    if mode & _OTHERS:
        raise SettingError(f"{path}: the key of secrets may be read by others; chmod 600 it.")
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise SettingError(f"{path} holds no key: it must be {KEY_BYTES} bytes in base64 (openssl rand -base64 32).")
    return KeyRing(secret)


def make_key_file(path: Path) -> KeyRing:
    """The keys of a new file, for its owner alone; of the one that somebody else made meanwhile, if so.

    Raises SettingError.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            os.fsync(descriptor)
            # A link and not a rename: the first one that is made stays.
            _link(draft, path)
        finally:
            os.close(descriptor)
            draft.unlink()
        _sync_directory(path.parent)
    except OSError as error:
        raise SettingError(f"{path}: the key of secrets cannot be written: {error.strerror}.") from error
    made = read_key_file(path)
    if made is None:
        raise SettingError(f"{path}: the key of secrets vanished as soon as it was written.")
    return made


def _link(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
