"""What a store may have: never wrong about what was added."""

from __future__ import annotations

import secrets

from forebay.cache.stores.known import Known


def test_before_it_knows_it_says_nothing() -> None:
    """Everything may be there, and it asks to be begun."""
    known = Known(1000)
    known.add("a")
    assert "a" in known
    assert "b" in known
    assert known.is_full


def test_what_was_added_is_there_and_hardly_anything_else() -> None:
    """At the number of ids that it is made for."""
    ids = [secrets.token_hex(16) for _ in range(5000)]
    known = Known(len(ids))
    known.begin(ids[:2500])
    for entry_id in ids[2500:]:
        known.add(entry_id)
    assert all(entry_id in known for entry_id in ids)
    assert sum(secrets.token_hex(16) in known for _ in range(10_000)) < 200


def test_it_is_begun_anew_when_it_is_full() -> None:
    """With what is there by then: most of what was added may be gone."""
    known = Known(1024)
    known.begin([])
    for i in range(1024):
        assert not known.is_full
        known.add(f"{i:032x}")
    assert known.is_full
    known.begin(["x"])
    assert "x" in known
    assert sum(f"{i:032x}" in known for i in range(1024)) < 50
