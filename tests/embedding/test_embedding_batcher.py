"""Embedding beside the event loop: batches, the memory, errors, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from forebay.embedding.batcher import EmbeddingBatcher
from forebay.errors import Overloaded


class _Counting:
    """An embedder that notes its batches and can be held back."""

    name, dimension = "counting", 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()

    def embed(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.free.wait(10)
        self.threads.add(threading.get_ident())
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("no vector for this")
        return [np.array([1.0, len(text)], dtype=np.float32) for text in texts]


@asynccontextmanager
async def _started(embedder: _Counting, **options: int) -> AsyncIterator[EmbeddingBatcher]:
    batcher = EmbeddingBatcher(lambda: embedder, **options)
    await batcher.start()
    embedder.batches.clear()
    try:
        yield batcher
    finally:
        embedder.free.set()
        await batcher.close()


async def test_a_text_is_embedded_once_and_remembered():
    """The second time the vector comes from memory, and it is the same object."""
    embedder = _Counting()
    async with _started(embedder) as batcher:
        first = await batcher.embed("a text")
        assert await batcher.embed("a text") is first
    assert embedder.batches == [["a text"]]


async def test_what_one_has_asked_is_not_remembered_for_another():
    """Whoever asks it next takes as long as if nobody had: otherwise the time would tell him that somebody did."""
    embedder = _Counting()
    async with _started(embedder, max_batch=1) as batcher:
        for owner in ("acme", "globex", "acme"):
            await batcher.embed("a secret question", apart=owner)
        assert embedder.batches == [["a secret question"]] * 2
        embedder.free.clear()
        waiting = [asyncio.create_task(batcher.embed("another", apart=owner)) for owner in ("acme", "globex")]
        await asyncio.sleep(0.01)
        embedder.free.set()
        await asyncio.gather(*waiting)
    assert embedder.batches[2:] == [["another"]] * 2


async def test_what_waits_becomes_a_batch_off_the_loops_thread():
    """While the thread works on one text the others gather, at most `max_batch` at a time; equal ones count once."""
    embedder = _Counting()
    async with _started(embedder, max_batch=3) as batcher:
        embedder.free.clear()
        waiting = [asyncio.create_task(batcher.embed(text)) for text in ("0", "1", "22", "22", "333", "4444")]
        await asyncio.sleep(0.05)
        embedder.free.set()
        vectors = await asyncio.gather(*waiting)
    assert [float(vector[1]) for vector in vectors] == [1, 1, 2, 2, 3, 4]
    assert sorted(text for batch in embedder.batches for text in batch) == ["0", "1", "22", "333", "4444"]
    assert max(map(len, embedder.batches)) == 3
    assert threading.get_ident() not in embedder.threads


async def test_the_least_recently_used_vector_is_forgotten():
    """No more vectors than `num_remembered` are kept."""
    embedder = _Counting()
    async with _started(embedder, num_remembered=2) as batcher:
        for text in ("a", "b", "a", "c", "a", "b"):
            await batcher.embed(text)
    assert embedder.batches == [["a"], ["b"], ["c"], ["b"]]


async def test_too_many_waiting_texts_are_refused():
    """Beyond `max_waiting` the caller is told at once, and those who wait are served."""
    embedder = _Counting()
    async with _started(embedder, max_waiting=2) as batcher:
        embedder.free.clear()
        waiting = [asyncio.create_task(batcher.embed(text)) for text in ("a", "b")]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.embed("c")
        embedder.free.set()
        assert len(await asyncio.gather(*waiting)) == 2


async def test_a_failure_reaches_its_callers_and_nobody_after_them():
    """What the embedder raises is raised by `embed`; the thread lives on and the text is not remembered."""
    embedder = _Counting()
    async with _started(embedder) as batcher:
        for _ in range(2):
            with pytest.raises(ValueError, match="no vector"):
                await batcher.embed("bad")
        assert (await batcher.embed("good"))[1] == 4
    assert embedder.batches == [["bad"], ["bad"], ["good"]]


async def test_a_cancelled_caller_does_not_take_the_vector_from_the_others():
    """Two wait for one text; the first one leaves; the second gets it."""
    embedder = _Counting()
    async with _started(embedder) as batcher:
        embedder.free.clear()
        first, second = (asyncio.create_task(batcher.embed("shared")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        embedder.free.set()
        assert (await second)[1] == 6
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_closing_ends_the_thread_and_whoever_waits():
    """`close` returns when the thread has ended; a caller left waiting is cancelled."""
    embedder = _Counting()
    batcher = EmbeddingBatcher(lambda: embedder)
    await batcher.start()
    embedder.free.clear()
    waiting = asyncio.create_task(batcher.embed("late"))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.01)
    embedder.free.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert "embedding" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("shape")])
async def test_a_model_that_does_not_load_fails_the_start(error: Exception):
    """`start` raises what loading raised."""

    def load() -> _Counting:
        raise error

    failing: Callable[[], _Counting] = load
    with pytest.raises(type(error)):
        await EmbeddingBatcher(failing).start()
