"""Which keys are in use: one producer a key, any number of followers, and the answer kept when it is complete."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import orjson

from forebay.drain import Drain
from forebay.errors import IdempotencyConflict, ShuttingDown
from forebay.failpoints import failpoint
from forebay.idempotency.answers import Answers, Kept
from forebay.idempotency.recording import Head, Reader, Recording
from forebay.ledger.account import KeptSettlement
from forebay.ledger.ledger import Ledger
from forebay.observe.record import RequestRecord

NO_HEAD = Head(200, ())


class Claims:
    """Lives on one event loop. What is in flight is in memory only: a crash releases it."""

    def __init__(self, answers: Answers, ledger: Ledger, drain: Drain, *, grace_s: float, max_bytes: int) -> None:
        """`grace_s`: how long a generation goes on when nobody follows it. `max_bytes` of one answer are kept."""
        self.answers = answers
        self.ledger = ledger
        self.drain = drain
        self.grace_s = grace_s
        self.max_bytes = max_bytes
        self._in_flight: dict[bytes, Claim] = {}
        self._producers: set[asyncio.Task[None]] = set()

    def find(self, key_id: bytes, fingerprint: bytes) -> Claim | Kept | None:
        """Who has the key. Raises `IdempotencyConflict` where it is another request's."""
        found = self._in_flight.get(key_id) or self.answers.find(key_id)
        if found is not None and found.fingerprint != fingerprint:
            raise IdempotencyConflict("This Idempotency-Key was used with another body: a new request needs a new key.")
        return found

    def open(self, key_id: bytes, fingerprint: bytes, record: RequestRecord) -> Claim:
        """The key is now the request's, which is told of in `record`; nobody has it."""
        claim = self._in_flight[key_id] = Claim(self, key_id, fingerprint, record)
        return claim

    def release(self, claim: Claim) -> None:
        """The next request with the key is a new one, unless an answer is kept. Idempotent."""
        if self._in_flight.get(claim.key_id) is claim:
            del self._in_flight[claim.key_id]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """The work of a producer, to its end."""
        producer = asyncio.create_task(work)
        self._producers.add(producer)
        producer.add_done_callback(self._producers.discard)

    async def close(self) -> None:
        """Ends what is left, before the engine and the ledger close."""
        for producer in self._producers:
            producer.cancel()
        await asyncio.gather(*self._producers, return_exceptions=True)


class Claim:
    """A key whose generation is under way. `join` it; its producer calls `keep`, and `close` in any case."""

    def __init__(self, claims: Claims, key_id: bytes, fingerprint: bytes, record: RequestRecord) -> None:
        self._claims = claims
        self.key_id = key_id
        self.fingerprint = fingerprint
        self.record = record
        self.recording = Recording(claims.max_bytes, self._on_alone)
        self._alone = ExitStack()
        self._settlement: KeptSettlement | None = None
        self._is_kept = False
        self._closed = False
        record.keep_settlement = self._take

    def join(self) -> Reader:
        """Raises `AnswerNotStored`."""
        reader = self.recording.join()
        self._alone.close()
        return reader

    def _on_alone(self) -> None:
        """A generation that nobody follows counts as in flight all the same."""
        if not self._closed:
            grace_s = self._claims.grace_s if self.recording.can_be_joined else 0.0
            timer = asyncio.get_running_loop().call_later(grace_s, self._abandon)
            self._alone.callback(timer.cancel)
            self._alone.enter_context(self._claims.drain.track())

    def _abandon(self) -> None:
        """Nobody has followed for the grace, or could any more."""
        if self._settlement is None:  # else it is complete, and the key is its until the answer is on the disk
            self._claims.release(self)
            self.record.patience.client_left()

    async def write(self, piece: bytes) -> None:
        await self.recording.write(piece)
        if not (self.recording.has_readers or self.recording.can_be_joined):
            self._abandon()

    def _take(self, settlement: KeptSettlement) -> None:
        """The generation is complete: its settlement waits for the answer's last bytes, and they for it."""
        self._settlement = settlement
        self.recording.withhold()

    async def keep(self) -> None:
        """The answer has been written: shows its end, once settlement and answer are durable, both or none.

        One that ended with an error is not kept. Raises what the request's patience ends with; they become durable all
        the same.
        """
        if self._settlement is not None:
            stored = self._store(self._settlement, *self.recording.content())
            with self.record.patience:
                await asyncio.shield(stored)
            failpoint("answer_stored")
        self.recording.end()

    def _store(self, settlement: KeptSettlement, head: Head, body: bytes | None) -> asyncio.Future[bool]:
        """`body` None: the key is used up, without an answer."""
        failpoint("storing_answer")
        self._is_kept = True
        record = self.record
        assert record.tenant is not None
        assert record.model is not None
        answers = self._claims.answers
        kept = Kept(
            self.key_id,
            record.tenant,
            self.fingerprint,
            record.request_id,
            record.model,
            expires_at=answers.expiry(),
            num_bytes=len(body or b""),
        )
        stored = self._claims.ledger.settle_with(settlement, answers.add(kept, head, body))
        stored.add_done_callback(lambda _: self._claims.release(self))
        return stored

    def close(self) -> None:
        """Idempotent. Waits for nothing: what is on its way to the disk has the key until it is there."""
        self._closed = True
        self._alone.close()
        if not self._is_kept:
            if self._settlement is None:
                self._claims.release(self)
            else:  # billed and not written to its end: whoever comes again must not be billed again
                self._store(self._settlement, NO_HEAD, None)
        self.recording.fail(ShuttingDown("The server shut down before the answer was complete.", retry_after_s=1))


def key_digest(tenant: str, user: str | None, route: str, key: str) -> bytes:
    return hashlib.sha256(orjson.dumps((tenant, user, route, key))).digest()


def fingerprint_of(body: bytes) -> bytes:
    """Of valid JSON, whatever its spaces and the order of its members."""
    return hashlib.sha256(orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)).digest()
