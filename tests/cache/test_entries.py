"""What is stored comes back as it was, or not at all."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.cache.entries import JITTER, MAX_DELTAS, OVERHEAD_BYTES, Seal, Sealed, expiry
from forebay.engines.mailbox import merge_deltas
from forebay.types import Delta, EngineTimes
from support.entries import NOW_MS, answer, embedding, entry, seal, sealed

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
DELTAS = st.builds(
    Delta,
    st.just(0),
    TEXTS,
    st.lists(st.integers(0, 2**31), max_size=3).map(tuple),
    finish_reason=st.sampled_from([None, "stop"]),
    stop_reason=st.one_of(st.none(), st.integers(0, 5), TEXTS),
    num_cached_tokens=st.integers(0, 9),
    reasoning=TEXTS,
    num_reasoning_tokens=st.integers(0, 3),
)


@given(st.lists(DELTAS, max_size=5).map(tuple))
def test_deltas_come_back_as_they_were(deltas: tuple[Delta, ...]) -> None:
    """Every field that is replayed, a stop token of id 0 among them."""
    whole = entry(deltas=deltas, vector=embedding(1))
    shut = seal().close(whole)
    assert shut is not None
    assert seal().open(shut) == whole


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DELTAS, min_size=MAX_DELTAS + 1, max_size=40).map(tuple))
def test_long_answers_are_merged(deltas: tuple[Delta, ...]) -> None:
    """Into a few deltas that say the same."""
    shut = seal().close(entry(deltas=deltas))
    assert shut is not None
    opened = seal().open(shut)
    assert opened is not None
    assert len(opened.deltas) <= MAX_DELTAS
    assert merge_deltas(list(opened.deltas)) == merge_deltas(list(deltas))


def test_times_are_not_replayed() -> None:
    """They were another request's."""
    timed = (Delta(0, "x", (1,), finish_reason="stop", times=EngineTimes(1, 2, 3)),)
    opened = seal().open(sealed(deltas=timed))
    assert opened is not None
    assert opened.deltas == (Delta(0, "x", (1,), finish_reason="stop"),)


@pytest.mark.parametrize("field", dataclasses.fields(Sealed), ids=lambda field: field.name)
def test_whatever_was_changed_is_noticed(field: dataclasses.Field[object]) -> None:
    """Each field is signed: an entry of another scope, another tenant or with another vector is no entry."""
    good = sealed(vector=embedding(1))
    value = getattr(good, field.name)
    others = [
        value + type(value)(b"x" if isinstance(value, bytes) else 1) if not isinstance(value, str) else value + "x"
    ]
    if isinstance(value, bytes):
        others += [value[:-1], bytes([value[0] ^ 1]) + value[1:], b""]
    if field.name == "embedding":
        others += [None]
    opening = seal()
    for other in others:
        assert opening.open(dataclasses.replace(good, **{field.name: other})) is None
    assert opening.num_refused == len(others)
    assert opening.open(good) is not None


def test_a_number_that_nobody_could_sign_is_not_ours() -> None:
    """Whoever can write to Redis can write any."""
    opening = seal()
    assert opening.open(dataclasses.replace(sealed(), expires_at=10**30)) is None
    assert opening.num_refused == 1


def test_bytes_cannot_move_from_the_vector_to_the_body() -> None:
    """What is signed tells where one ends."""
    good = sealed(vector=embedding(1))
    assert good.embedding is not None
    moved = dataclasses.replace(
        good, embedding=good.embedding[:-1], body=good.body[:16] + good.embedding[-1:] + good.body[16:]
    )
    assert seal().open(moved) is None


def test_entries_of_another_secret_are_foreign() -> None:
    """Of a server with another secret, or of whoever can write to the store."""
    opening = Seal(b"another secret", max_bytes=1 << 20)
    assert opening.open(sealed()) is None
    assert opening.num_refused == 1


def test_what_is_too_large_is_not_kept() -> None:
    """Compressed, and before it."""
    small = seal(max_bytes=2000)
    assert small.close(entry(deltas=answer("word " * 100))) is not None
    assert small.close(entry(deltas=tuple(Delta(0, chr(i), (i * i,)) for i in range(48, 1048)))) is None
    assert small.close(entry(deltas=(Delta(0, "a" * 20_000),))) is None


def test_a_text_that_is_none_is_not_kept() -> None:
    """Half a character cannot be written down."""
    assert seal().close(entry(text="\ud800")) is None


def test_an_entry_is_small() -> None:
    """A few bytes a token, and 1.5 KiB for an embedding of 384 numbers."""
    deltas = tuple(Delta(0, f" word{i % 97}", (i * 7919 % 49152,)) for i in range(300))
    made = sealed(deltas=deltas, vector=embedding(1, dim=384))
    assert made.num_bytes < OVERHEAD_BYTES + 4 * 384 + 300 * 8


def test_ends_are_spread() -> None:
    """What was stored in one moment does not end in one moment, and nothing lives longer than it may."""
    ends = [expiry(NOW_MS, 100.0) - NOW_MS for _ in range(200)]
    assert max(ends) <= 100_000
    assert min(ends) >= 100_000 * (1 - JITTER)
    assert len(set(ends)) > 150
