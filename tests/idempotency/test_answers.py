"""`Answers` by itself: bounds in bytes and number, whose answers go first, and what a later process finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forebay.errors import AnswerNotStored
from forebay.idempotency.answers import Answers, Kept
from forebay.idempotency.recording import Head
from forebay.stores.database import Database

HEAD = Head(200, ((b"content-type", b"application/json"),))
BODY = b"{}" * 500

Add = Callable[[str, str], Kept]


class Shop:
    """Answers in a data file of their own."""

    def __init__(self, database: Database, answers: Answers) -> None:
        self.database = database
        self.answers = answers

    async def add(self, name: str, tenant: str = "ours", body: bytes | None = BODY) -> None:
        kept = Kept(
            name.encode(), tenant, b"print", f"request-{name}", "model", self.answers.expiry(), len(body or b"")
        )
        await self.database.write(self.answers.add(kept, HEAD, body))

    async def found(self, *names: str) -> str:
        """Of each name: `k` for kept, `a` for answered and not kept, `n` for a key that nobody knows."""
        states = ""
        for name in names:
            kept = self.answers.find(name.encode())
            if kept is None:
                states += "n"
                continue
            try:
                assert await self.answers.read(kept) == (HEAD, BODY)
                states += "k"
            except AnswerNotStored:
                states += "a"
        return states

    async def num_rows(self) -> int:
        return await self.database.read(
            lambda file: file.execute("SELECT count(*) FROM idempotent_answers").fetchone()[0]
        )


@asynccontextmanager
async def shop(folder: Path, **bounds: float) -> AsyncIterator[Shop]:
    database = Database(folder)
    database.open()
    database.begin()
    answers = Answers(database, **{"ttl_s": 60, "max_total_bytes": 1 << 20, "max_keys": 100, **bounds})
    answers.begin()
    try:
        yield Shop(database, answers)
    finally:
        await database.close(10)


async def test_the_next_process_finds_what_was_kept(tmp_path: Path) -> None:
    """With the bounds of its own settings, the oldest going first."""
    async with shop(tmp_path) as first:
        for name in "abc":
            await first.add(name)
        await first.add("d", body=None)
        assert await first.found(*"abcde") == "kkkan"
    async with shop(tmp_path, max_total_bytes=3 * len(BODY)) as second:
        assert await second.found(*"abcde") == "kkkan"
        await second.add("f")
        assert await second.found(*"abcdf") == "akkak"
    async with shop(tmp_path) as third:
        assert await third.found(*"abcdf") == "akkak"


async def test_room_is_made_by_who_holds_the_most(tmp_path: Path) -> None:
    """A tenant that sends many keys loses its own oldest answers, nobody else's; the keys stay known as answered."""
    async with shop(tmp_path, max_total_bytes=4 * len(BODY)) as open_shop:
        await open_shop.add("x", "theirs")
        for name in "abcde":
            await open_shop.add(name)
        assert await open_shop.found(*"xabcde") == "kaakkk"


async def test_keys_are_bounded_too(tmp_path: Path) -> None:
    """The oldest keys of the tenant with the most are forgotten, in the file as well."""
    async with shop(tmp_path, max_keys=3) as open_shop:
        await open_shop.add("x", "theirs")
        for name in "abcd":
            await open_shop.add(name)
        assert await open_shop.found(*"xabcd") == "knnkk"
        assert await open_shop.num_rows() == 3


async def test_what_has_expired_is_gone(tmp_path: Path) -> None:
    """At once for who asks, soon from the file; the key may be used anew before that."""
    async with shop(tmp_path, ttl_s=0.001) as short:
        await short.add("a")
        await short.add("b")
        await asyncio.sleep(0.002)
        assert await short.found("a", "b") == "nn"
    async with shop(tmp_path) as later:
        assert await later.found("a", "b") == "nn"
        await later.add("a")
        assert await later.num_rows() == 2
        later.answers.tick()
        await later.add("c")
        assert await later.found("a", "b", "c") == "knk"
        assert await later.num_rows() == 2


@pytest.mark.parametrize("body", [BODY, None])
async def test_an_answer_larger_than_all_the_room(tmp_path: Path, body: bytes | None) -> None:
    """Its key is known as answered, and others keep their room."""
    async with shop(tmp_path, max_total_bytes=len(BODY) - 1) as open_shop:
        await open_shop.add("a", body=body)
        assert await open_shop.found("a") == "a"
