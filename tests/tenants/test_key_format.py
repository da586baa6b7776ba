"""What a key looks like."""

from __future__ import annotations

import re

from forebay.tenants.key_format import is_well_formed, new_id, new_key


def test_a_key_names_its_id_and_checks_itself() -> None:
    """`fb-<id>-<43 characters>-<checksum>`; 43 digits of base 62 hold 32 random bytes."""
    for _ in range(200):
        key_id = new_id()
        key = new_key(key_id)
        assert re.fullmatch(rf"fb-{key_id}-[0-9A-Za-z]{{43}}-[0-9A-Za-z]{{6}}", key)
        assert is_well_formed(key)


def test_no_two_keys_are_alike() -> None:
    """Ids and secrets are drawn anew each time."""
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert len({new_key("0123456789") for _ in range(1000)}) == 1000


def test_a_mistyped_key_is_told_apart_without_a_look_up() -> None:
    """One other character anywhere, one more, one less, two swapped."""
    key = new_key(new_id())
    for at in range(len(key)):
        other = "a" if key[at] != "a" else "b"
        assert not is_well_formed(key[:at] + other + key[at + 1 :]), at
        assert not is_well_formed(key[:at] + key[at + 1 :])
        assert not is_well_formed(key[:at] + other + key[at:])
        if at and key[at - 1] != key[at]:
            assert not is_well_formed(key[: at - 1] + key[at] + key[at - 1] + key[at + 1 :])
    for text in ("", "fb-", "fb---", key.upper(), key + key, "\u00e9" * len(key), f" {key}"):
        assert not is_well_formed(text)
