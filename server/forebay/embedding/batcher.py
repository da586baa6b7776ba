"""An embedder beside the event loop: one thread, which takes what waits as a batch, and the last texts remembered."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from forebay.embedding.base import Embedder
from forebay.errors import Overloaded

if TYPE_CHECKING:
    from forebay.embedding.base import Vector


class TextEmbedder(Protocol):
    """What the cache asks."""

    async def embed(self, text: str, *, apart: str = "") -> Vector: ...


Key = tuple[str, str]
"""Whose text it is, and the text."""


class EmbeddingBatcher:
    """`embed` for one event loop, over an `Embedder` that is loaded in the thread.

    At most `max_waiting` texts wait, at most `num_remembered` vectors are kept (at 384 x float32: 1.5 KB each and the
    text); equal texts of one owner that wait are embedded once. What the embedder raises, its batch's callers get.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        *,
        max_batch: int = 8,
        max_waiting: int = 256,
        num_remembered: int = 4096,
    ) -> None:
        self._load = load
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._num_remembered = num_remembered
        self._remembered: OrderedDict[Key, Vector] = OrderedDict()
        self._waiting: dict[Key, asyncio.Future[Vector]] = {}
        self._texts: queue.SimpleQueue[Key | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._embedder: Embedder | None = None

    @property
    def embedder(self) -> Embedder:
        """The loaded one, after `start`."""
        assert self._embedder is not None, "start() first"
        return self._embedder

    async def start(self) -> None:
        """Loads the model and embeds once, so that the first request need not wait. Raises what loading raises."""
        self._loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Embedder] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(loaded,), name="embedding", daemon=True)
        self._thread.start()
        self._embedder = await loaded
        await self.embed("Is the water still in front of the turbine?")

    async def embed(self, text: str, *, apart: str = "") -> Vector:
        """The text's unit vector, which callers share and must not change. Raises Overloaded when too many wait.

        `apart`: whose text it is. What is remembered is the owner's alone: how long it takes tells nobody what others
        have asked.
        """
        key = (apart, text)
        vector = self._remembered.get(key)
        if vector is not None:
            self._remembered.move_to_end(key)
            return vector
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded("Too many texts wait for their embedding.")
            assert self._loop is not None, "start() first"
            waiting = self._waiting[key] = self._loop.create_future()
            self._texts.put(key)
        # Shielded: another caller may wait for the same text.
        return await asyncio.shield(waiting)

    async def close(self) -> None:
        """Ends the thread after the batch it works on; whoever still waits is told (asyncio.CancelledError)."""
        self._texts.put(None)
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self, loaded: asyncio.Future[Embedder]) -> None:
        try:
            embedder = self._load()
        except Exception as exc:
            self._tell(self._settle, loaded, exc)
            return
        self._tell(self._settle, loaded, embedder)
        while (batch := self._next_batch()) is not None:
            try:
                outcomes: list[Vector | Exception] = list(embedder.embed([text for _, text in batch]))
            except Exception as exc:
                outcomes = [exc] * len(batch)
            self._tell(self._finish, batch, outcomes)

    def _next_batch(self) -> list[Key] | None:
        """What waits, at most `max_batch` texts, as soon as there is one; None when closed."""
        batch: list[Key] = []
        while len(batch) < self._max_batch:
            try:
                key = self._texts.get(block=not batch)
            except queue.Empty:
                break
            if key is None:
                return None
            batch.append(key)
        return batch

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(call, *args)

    def _finish(self, batch: list[Key], outcomes: list[Vector | Exception]) -> None:
        for key, outcome in zip(batch, outcomes, strict=True):
            future = self._waiting.pop(key, None)
            if future is not None:
                self._settle(future, outcome)
            if not isinstance(outcome, Exception):
                self._remembered[key] = outcome
        while len(self._remembered) > self._num_remembered:
            self._remembered.popitem(last=False)

    @staticmethod
    def _settle(future: asyncio.Future[Any], outcome: object) -> None:
        if future.cancelled():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
