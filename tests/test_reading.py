"""Reading a request's text is part of the request: it has a place in the queue, a time, and a client who may leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from forebay.engines.base import Engine
from forebay.engines.scripted import ScriptedEngine
from forebay.settings import Settings
from forebay.types import Chat, Prompt
from support.door import BODIES, CHAT, COMPLETIONS, DETOKENIZE, GENERATE, TOKENIZE
from support.inside import Answer, Inside, inside

GENERATING = pytest.mark.parametrize("path", [CHAT, COMPLETIONS, GENERATE])
BOTH = pytest.mark.parametrize("path", [CHAT, TOKENIZE])
READING = pytest.mark.parametrize("path", [CHAT, COMPLETIONS, GENERATE, TOKENIZE, DETOKENIZE])
ONE_SLOT = {"max_num_seqs": 1, "max_queued_requests": 1}


class Reader(ScriptedEngine):
    """Reads no text until it may."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.may_read = asyncio.Event()
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.num_reading = 0

    async def _wait(self) -> None:
        self.begun.put_nowait(None)
        self.num_reading += 1
        try:
            await self.may_read.wait()
        finally:
            self.num_reading -= 1

    async def render(self, chat: Chat) -> Prompt:
        await self._wait()
        return await super().render(chat)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        await self._wait()
        return await super().tokenize(text, add_special_tokens)

    async def detokenize(self, token_ids: list[int]) -> str:
        await self._wait()
        return await super().detokenize(token_ids)


class Readers(list[Reader]):
    """Builds an engine and remembers it."""

    def __call__(self, settings: Settings) -> Engine:
        self.append(Reader(settings))
        return self[-1]


def ask(app: Inside, path: str, **how: Any) -> asyncio.Task[Answer]:
    return asyncio.create_task(app.post(path, BODIES[path], **how))


async def until_begun(engine: Reader, count: int) -> None:
    async with asyncio.timeout(5):
        for _ in range(count):
            await engine.begun.get()


def check(answer: Answer, status: int, code: str) -> str:
    """Returns the message."""
    assert (answer.status, answer.json()["error"]["code"]) == (status, code), answer.body
    message: str = answer.json()["error"]["message"]
    return message


@READING
async def test_no_text_is_read_for_those_who_are_refused(path: str) -> None:
    """The place is taken first: who finds the queue full costs nothing, and has not read."""
    async with inside(built := Readers(), **ONE_SLOT) as app:
        admitted = [ask(app, path), ask(app, path)]
        await until_begun(built[0], 2)
        refused = await app.post(path, BODIES[path])
        check(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert built[0].begun.empty()
        built[0].may_read.set()
        assert [(await one).status for one in admitted] == [200, 200]


async def test_reading_for_its_own_sake_takes_no_place_of_a_generation() -> None:
    """Nor the other way round: a queue full of /tokenize refuses no chat, and a full queue of chats no /tokenize."""
    async with inside(built := Readers(), **ONE_SLOT) as app:
        asked = [ask(app, path) for path in (TOKENIZE, TOKENIZE, CHAT, CHAT)]
        await until_begun(built[0], 4)
        for path in (TOKENIZE, CHAT):
            check(await app.post(path, BODIES[path]), 503, "overloaded")
        built[0].may_read.set()
        assert [(await one).status for one in asked] == [200] * 4


@READING
async def test_reading_ends_when_the_client_leaves(path: str) -> None:
    """What is read for nobody is given up, and the place is free again."""
    async with inside(built := Readers(), **ONE_SLOT) as app:
        left = asyncio.Event()
        leaving = [ask(app, path, left=left), ask(app, path, left=left)]
        await until_begun(built[0], 2)
        left.set()
        async with asyncio.timeout(2):
            gone = await asyncio.gather(*leaving)
        assert [answer.record.outcome for answer in gone] == ["client_gone"] * 2
        assert built[0].num_reading == 0
        built[0].may_read.set()
        assert (await app.post(path, BODIES[path])).status == 200


@READING
async def test_reading_is_time_of_the_request(path: str) -> None:
    """504 at the request's deadline, quoting the setting; the place is free again."""
    async with inside(built := Readers(), **ONE_SLOT, request_timeout_s=0.3) as app:
        async with asyncio.timeout(2):
            late = await asyncio.gather(ask(app, path), ask(app, path))
        for answer in late:
            assert "longer than 0.3 s" in check(answer, 504, "timeout")
            assert answer.record.outcome == "timeout"
        assert built[0].num_reading == 0
        built[0].may_read.set()
        assert (await app.post(path, BODIES[path])).status == 200


def loading_until(loaded: threading.Event) -> Callable[[Settings], Engine]:
    def build(settings: Settings) -> Engine:
        loaded.wait(5)
        return ScriptedEngine(settings)

    return build


@BOTH
async def test_body_and_load_share_one_time(path: str) -> None:
    """A slow body leaves less to a model that is loading, and not as much again."""
    loaded = threading.Event()

    async with inside(loading_until(loaded), load=False, request_timeout_s=0.6) as app:
        answer = await app.post(path, BODIES[path], body_after_s=0.4)
        assert "longer than 0.6 s" in check(answer, 504, "timeout")
        assert answer.record.duration_s is not None
        assert answer.record.duration_s < 0.9
        loaded.set()


@BOTH
async def test_those_who_wait_for_the_model_are_bounded(path: str) -> None:
    """With lazy loading the queue is as long as it is afterwards; its members are answered."""
    loaded = threading.Event()

    async with inside(loading_until(loaded), load=False, **ONE_SLOT) as app:
        waiting = [ask(app, path), ask(app, path)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            check(await app.post(path, BODIES[path]), 503, "overloaded")
        loaded.set()
        assert [(await one).status for one in waiting] == [200, 200]


@GENERATING
async def test_a_refusal_after_reading_gives_the_place_back(path: str) -> None:
    """A prompt that turns out too long leaves the queue as it was."""
    async with inside(built := Readers(), **ONE_SLOT, max_model_len=32) as app:
        built[0].may_read.set()
        field = {"messages": [{"role": "user", "content": "hi " * 99}]} if path == CHAT else {"prompt": "hi " * 99}
        for _ in range(5):
            check(await app.post(path, BODIES[path] | field), 400, "context_length_exceeded")
        short = {"messages": [{"role": "user", "content": "h"}]} if path == CHAT else {"prompt": "h"}
        assert (await app.post(path, BODIES[path] | short)).status == 200


async def test_token_strings_are_made_beside_the_event_loop() -> None:
    """A million of them take seconds, in which others are answered."""
    answered = threading.Event()

    class Slow(ScriptedEngine):
        def token_strings(self, token_ids: list[int]) -> list[str]:
            assert answered.wait(5), "nobody was answered meanwhile"
            return super().token_strings(token_ids)

    async with inside(Slow) as app:
        slow = asyncio.create_task(app.post(TOKENIZE, {"prompt": "hi", "return_token_strs": True}))
        await asyncio.sleep(0.05)
        assert (await app.post(TOKENIZE, {"prompt": "hi"})).status == 200
        answered.set()
        assert "".join((await slow).json()["token_strs"]) == "hi"
