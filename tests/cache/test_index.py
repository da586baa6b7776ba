"""The nearest of a scope, and what the index holds."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache.index import FIRST_ROWS, MAX_ROWS, Index
from support.entries import DIM, chance_embedding, embedding


def vectors(num: int, seed: int = 0) -> dict[str, bytes]:
    rng = random.Random(seed)
    return {str(i): chance_embedding(rng) for i in range(num)}


def brute(held: dict[str, bytes], query: bytes, k: int) -> list[str]:
    """By the definition."""
    wanted = np.frombuffer(query, "<f4")
    return sorted(held, key=lambda name: -float(np.frombuffer(held[name], "<f4") @ wanted))[:k]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3 * FIRST_ROWS), st.integers(1, 8))
def test_the_nearest_are_found_whatever_came_and_went(seed: int, num: int, k: int) -> None:
    """As a search by the definition finds them, while rows are added, replaced and removed."""
    rng = random.Random(seed)
    index, held = Index(), {}
    for step in range(3 * num):
        name = str(rng.randrange(num))
        if rng.random() < 0.4:
            index.remove("s", name)
            held.pop(name, None)
        else:
            held[name] = chance_embedding(rng)
            index.add("s", [(name, held[name])])
        query = chance_embedding(rng)
        assert [found for found, _ in index.nearest("s", query, k)] == brute(held, query, k), step
    assert ("s" in index) == bool(held)


def test_growing_copies_nothing() -> None:
    """Rows stay where they are while blocks are added, and what is allocated is at most twice what is filled."""
    index = Index()
    index.add("s", vectors(FIRST_ROWS).items())
    first = index._scopes["s"]._blocks[0]
    index.add("s", vectors(3 * MAX_ROWS).items())
    blocks = index._scopes["s"]._blocks
    assert blocks[0] is first
    assert max(len(block.rows) for block in blocks) == MAX_ROWS
    assert sum(len(block.rows) for block in blocks) <= 2 * 3 * MAX_ROWS
    before = index.num_bytes
    for i in range(3 * MAX_ROWS - 1):
        index.remove("s", str(i))
    assert index.num_bytes < before / 50


def test_in_a_large_scope_the_near_are_found_by_their_sketches() -> None:
    """Of 20,000 texts the two that are near to another wording of one of them, as the definition has them."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(20_000, 384))
    rows[10_000:] = rows[:10_000] + 0.6 * rng.normal(size=(10_000, 384))  # each with one like it
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
    index = Index()
    index.add("s", ((str(i), row.tobytes()) for i, row in enumerate(rows)))
    for i in range(0, 10_000, 100):
        query = rows[i] + 0.3 * rows[(i + 1) % 10_000]
        query /= np.linalg.norm(query)
        wanted = np.argsort(-(rows @ query))[:2]
        found = index.nearest("s", query.tobytes(), 4)[:2]
        assert [name for name, _ in found] == [str(place) for place in wanted], i
        assert np.allclose([cosine for _, cosine in found], (rows @ query)[wanted], atol=1e-6)


def test_scopes_are_searched_alone() -> None:
    """What is in another scope is not there, nor is what another embedder has made."""
    index = Index()
    index.add("a", [("1", embedding(1))])
    index.add("b", [("2", embedding(1))])
    assert index.nearest("a", embedding(1), 5) == [("1", 1.0)]
    assert index.nearest("c", embedding(1), 5) == []
    assert index.nearest("a", embedding(1, dim=DIM + 1), 5) == []
    index.add("a", [("odd", b"xyz"), ("empty", b"")])
    assert index.nearest("a", embedding(1), 5) == [("1", 1.0)]
    index.add("a", [("3", embedding(1, dim=DIM + 1))])
    assert index.nearest("a", embedding(1), 5) == []
    assert index.nearest("a", embedding(1, dim=DIM + 1), 5) == [("3", 1.0)]


def test_the_scopes_that_were_searched_last_stay() -> None:
    """Others make room whole, the least recently searched first."""
    each = num_bytes_of(FIRST_ROWS)
    index = Index(3 * each)
    for scope in "abc":
        index.add(scope, vectors(10).items())
    index.nearest("a", embedding(1), 1)
    index.add("d", vectors(10).items())
    assert [scope in index for scope in "abcd"] == [True, False, True, True]
    index.add("d", vectors(FIRST_ROWS + 1).items())
    assert [scope in index for scope in "abcd"] == [True, False, False, True]
    assert (index.num_bytes, index.num_dropped) == (3 * each, 20)
    index.clear()
    assert index.num_bytes == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(FIRST_ROWS, 3 * FIRST_ROWS))
def test_no_scope_grows_beyond_the_bound(seed: int, room: int) -> None:
    """Whatever is replaced and removed meanwhile; what was put in last is there, and half of the room is used at
    least."""
    rng, bound = random.Random(seed), num_bytes_of(room)
    index, held = Index(bound), {}
    for step in range(20 * FIRST_ROWS):
        name = str(rng.randrange(step + 1))
        if rng.random() < 0.1:
            index.remove("s", name)
            held.pop(name, None)
        else:
            held[name] = chance_embedding(rng)
            index.add("s", [(name, held[name])])
            assert index.nearest("s", held[name], 1)[0][0] == name
        assert index.num_bytes <= bound
    found = {one for one, _ in index.nearest("s", chance_embedding(rng), 1000)}
    assert found <= held.keys()
    assert index.num_dropped > 0
    assert len(found) >= room // 2


def num_bytes_of(num_rows: int) -> int:
    index = Index()
    index.add("s", vectors(1).items())
    return index.num_bytes // FIRST_ROWS * num_rows
