"""Keys and tokens: made here, stored only as digests.

A plain SHA-256 is enough where a password would need a slow hash: generated keys have 256 bits of chance, so
there is nothing to guess, and the digest is computed on each request. (A first key that an operator chooses
by OUTGATE_API_KEY is as strong as the operator made it.)
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from outgate.errors import InvalidValueError

KEY_PREFIX: Final = "ogk_"
RESTRICTED_KEY_PREFIX: Final = "ogr_"
_RANDOM_BYTES: Final = 32
_LOOKUP_CHARACTERS: Final = 16
KEY_LENGTH_MAX: Final = 512
"""Longer than any key of ours or of the hosted service; bounds what is hashed for strangers."""


@dataclass(frozen=True, slots=True)
class SecretDigest:
    """A secret at rest. ``lookup``, the start of the digest in hex, is what the index holds."""

    lookup: str
    digest: bytes

    def equals(self, other: bytes) -> bool:
        """Whether ``other`` is the same digest, in a time that does not tell where they differ."""
        return hmac.compare_digest(self.digest, other)


def make_key() -> str:
    """A new API key with 256 bits of chance."""
    return KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def derive_key(prefix: str, chance: bytes) -> str:
    """The API key made of ``chance``, 32 bytes that nobody can guess: the same for the same bytes."""
    return prefix + base64.urlsafe_b64encode(chance).decode().rstrip("=")


def digest_secret(secret: str) -> SecretDigest:
    """How ``secret`` is stored and looked up."""
    digest = hashlib.sha256(secret.encode()).digest()
    return SecretDigest(digest.hex()[:_LOOKUP_CHARACTERS], digest)


def parse_key(text: str) -> str:
    """``text``, if it can travel in an Authorization header (RFC 6750 §2.1). Raises InvalidValueError."""
    is_visible = text.isascii() and text.isprintable() and " " not in text
    if not text or len(text) > KEY_LENGTH_MAX or not is_visible:
        message = f"An API key is 1 to {KEY_LENGTH_MAX} visible ASCII characters without spaces."
        raise InvalidValueError(message, field="api_key")
    return text
