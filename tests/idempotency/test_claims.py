"""`Claims` by itself: a complete bill has its answer, or the note that it is not kept, however the request ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forebay.drain import Drain
from forebay.errors import AnswerNotStored, ShuttingDown
from forebay.idempotency.answers import Answers, Kept
from forebay.idempotency.claims import Claim, Claims
from forebay.idempotency.recording import Head
from forebay.ledger.ledger import Ledger
from forebay.observe.record import RequestRecord
from forebay.patience import Patience
from forebay.stores.database import Database
from forebay.types import Caller, Usage

HEAD = Head(200, ((b"content-type", b"application/json"),))
BODY = b'{"text": "whole"}'
KEY, PRINT = b"key", b"print"


class Book:
    """A ledger with one complete generation, whose settlement waits for its answer."""

    def __init__(self, database: Database, answers: Answers, claims: Claims, claim: Claim) -> None:
        self.claims = claims
        self.claim = claim
        self._database = database
        self._answers = answers

    async def outcomes(self) -> list[str]:
        """Of all settlements."""
        await self._database.write(lambda file: None)  # what was handed over before is durable now
        return await self._database.read(
            lambda file: [outcome for (outcome,) in file.execute("SELECT outcome FROM entries")]
        )

    async def answer(self) -> tuple[Head, bytes]:
        """What whoever repeats the request gets."""
        kept = self.claims.find(KEY, PRINT)
        assert isinstance(kept, Kept)
        return await self._answers.read(kept)


@asynccontextmanager
async def complete(folder: Path) -> AsyncIterator[Book]:
    database = Database(folder)
    ledger = Ledger(database, bytes(32), None, strict=False, lease_s=60)
    ledger.begin()
    answers = Answers(database, ttl_s=60, max_total_bytes=1 << 20, max_keys=10)
    answers.begin()
    drain = Drain()
    claims = Claims(answers, ledger, drain, grace_s=1, max_bytes=1 << 20)
    record = RequestRecord("request-1", "POST", patience=Patience(drain), model="m", tenant="ours", key_id="k")
    claim = claims.open(KEY, PRINT, record)
    account = await ledger.open(
        Caller("ours", "k"),
        record,
        at=1,
        prompt_tokens=3,
        completion_tokens=5,
        cost=0,
        on_settled=lambda tokens, cost: None,
    )
    account.settle("complete", Usage(3, 5), Usage(3, 5))
    try:
        yield Book(database, answers, claims, claim)
    finally:
        await ledger.close(10)


async def test_an_answer_that_is_whole_is_kept_though_time_is_over(tmp_path: Path) -> None:
    """The limit, or the end of the drain, comes between the last token and the disk: the caller is told, and who comes
    again gets the answer that was billed."""
    async with complete(tmp_path) as book:
        book.claim.recording.begin(HEAD)
        await book.claim.write(BODY)
        book.claim.record.patience.force()
        with pytest.raises(ShuttingDown):
            await book.claim.keep()
        book.claim.close()
        assert await book.outcomes() == ["complete"]
        assert await book.answer() == (HEAD, BODY)


async def test_what_was_billed_and_never_written_uses_its_key_up(tmp_path: Path) -> None:
    """Its client was failed after the last token: another attempt is told that there is no answer, and not billed."""
    async with complete(tmp_path) as book:
        book.claim.close()
        assert await book.outcomes() == ["complete"]
        with pytest.raises(AnswerNotStored):
            await book.answer()
