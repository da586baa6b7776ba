"""Entries of the cache for tests of its stores."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from forebay.cache.entries import Entry, Seal, Sealed
from forebay.types import Delta, Usage

SECRET = b"a secret of the tests, long enough"
NOW_MS = 1_800_000_000_000
DIM = 8


def seal(max_bytes: int = 1 << 20) -> Seal:
    return Seal(SECRET, max_bytes=max_bytes)


def embedding(*numbers: float, dim: int = DIM) -> bytes:
    """Of unit length; numbers that are left out are 0."""
    padded = [*numbers, *[0.0] * (dim - len(numbers))]
    length = sum(number * number for number in padded) ** 0.5
    return struct.pack(f"<{dim}f", *(number / length for number in padded))


def chance_embedding(rng: random.Random, dim: int = DIM) -> bytes:
    return embedding(*(rng.gauss(0, 1) for _ in range(dim)), dim=dim)


def answer(text: str = "An answer.") -> tuple[Delta, ...]:
    words = text.split(" ")
    deltas = [Delta(0, word if i == 0 else f" {word}", (i + 1,)) for i, word in enumerate(words)]
    return (*deltas, Delta(0, finish_reason="stop"))


def entry(
    entry_id: str = "e1",
    *,
    scope: str = "s1",
    text: str = "A question?",
    tenant: str = "acme",
    model: str = "m",
    epoch: int = 0,
    expires_in_ms: int = 60_000,
    deltas: Sequence[Delta] | None = None,
    vector: bytes | None = None,
) -> Entry:
    given = tuple(answer() if deltas is None else deltas)
    usage = Usage(3, sum(len(delta.token_ids) for delta in given))
    return Entry(
        entry_id, scope, text, tenant, model, epoch, NOW_MS, NOW_MS + expires_in_ms, given, usage, "stop", vector
    )


def sealed(entry_id: str = "e1", **fields: object) -> Sealed:
    made = seal().close(entry(entry_id, **fields))  # type: ignore[arg-type]
    assert made is not None
    return made


def sized(entry_id: str, num_bytes: int, **fields: object) -> Sealed:
    """One that counts as exactly so many bytes."""
    made = sealed(entry_id, **fields)
    padding = num_bytes - made.num_bytes
    assert padding >= 0
    return Sealed(*(getattr(made, name) for name in list(made.__slots__)[:-1]), made.body + b"\0" * padding)
