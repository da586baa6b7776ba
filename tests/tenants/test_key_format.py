"""What a key looks like."""

from __future__ import annotations

import re
import string
import zlib

from forebay.tenants.key_format import new_id, new_key

BASE_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def test_a_key_names_its_id() -> None:
    """`fb-<id>-<43 characters>-<checksum>`; 43 digits of base 62 hold 32 random bytes."""
    for _ in range(200):
        key_id = new_id()
        key = new_key(key_id)
        assert re.fullmatch(rf"fb-{key_id}-[0-9A-Za-z]{{43}}-[0-9A-Za-z]{{6}}", key)


def test_no_two_keys_are_alike() -> None:
    """Ids and secrets are drawn anew each time."""
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert len({new_key("0123456789") for _ in range(1000)}) == 1000


def test_the_checksum_is_that_of_what_stands_before_it() -> None:
    """CRC-32 in base 62, the most significant digit first."""
    for _ in range(200):
        body, _, checksum = new_key(new_id()).rpartition("-")
        number = 0
        for char in checksum:
            number = 62 * number + BASE_62.index(char)
        assert number == zlib.crc32(body.encode())
