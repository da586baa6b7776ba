"""What a key looks like: `fb-<id>-<secret>-<checksum>`, so that a scanner for leaked secrets can tell one."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib

PREFIX = "fb-"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_ALPHABET = string.digits + string.ascii_lowercase
ID_CHARS = 10
SECRET_BYTES = 32
SECRET_CHARS = 43
"""32 bytes in base 62."""
CHECKSUM_CHARS = 6
"""32 bits in base 62."""


def new_id() -> str:
    """The id of a new key: ten characters that are in every answer and log line about it, and tell nothing."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_CHARS))


def new_key(key_id: str) -> str:
    """A new secret for this id, as the whole key."""
    body = f"{PREFIX}{key_id}-{_base62(secrets.token_bytes(SECRET_BYTES), SECRET_CHARS)}"
    return f"{body}-{_checksum(body)}"


def digest_of(key: str) -> bytes:
    """What is kept of a key: SHA-256 of all of it, so that no two that differ anywhere are taken for each other."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()).to_bytes(4, "big"), CHECKSUM_CHARS)


def _base62(data: bytes, num_chars: int) -> str:
    number, chars = int.from_bytes(data, "big"), []
    for _ in range(num_chars):
        number, digit = divmod(number, 62)
        chars.append(ALPHABET[digit])
    return "".join(reversed(chars))
