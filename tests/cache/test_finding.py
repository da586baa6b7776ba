"""What a look-up finds, and what it joins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from forebay.cache.controls import Controls
from forebay.cache.entries import Seal
from forebay.cache.lookup import Cache, Hit, Place
from forebay.cache.policy import CacheRules
from forebay.cache.scope import ScopeKeys
from forebay.cache.stores.base import Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.tiered import TieredStore
from forebay.engines.base import EngineInfo
from forebay.errors import NotCached
from forebay.observe.record import RequestRecord
from forebay.types import Caller, Chat, Delta, GenerationRequest, Priority, Prompt, Sampling
from support.flying import Engine, read_all, settle

SECRET = b"a secret of the tests, long enough"
INFO = EngineInfo("scripted", "m", "r1", 4096, 1000, 4, "cpu", "float32")
GREEDY = Sampling(16, temperature=0.0)
ANSWER = [Delta(0, "Water.", (1,), finish_reason="stop")]


def cache_over(store: TieredStore, *, embedder: str = "") -> Cache:
    keys, seal = ScopeKeys(SECRET, embedder=embedder), Seal(SECRET, max_bytes=1 << 20)
    return Cache(store, keys, CacheRules("exact"), seal, ttl_s=60)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[TieredStore]:
    quotas = Quotas(1 << 20, 1 << 20)
    made = TieredStore(*(MemoryStore(quotas, lambda: 0) for _ in range(2)))
    yield made
    await made.close()


@pytest.fixture
def cache(store: TieredStore) -> Cache:
    return cache_over(store)


async def look_up(cache: Cache, *, priority: Priority = "interactive", **asked: object) -> Hit | Place | None:
    chat = Chat(({"role": "user", "content": "What is in a dam?"},))
    request = GenerationRequest("r", Prompt((1, 2)), GREEDY)
    controls = Controls(**asked)  # type: ignore[arg-type]
    ask = cache.ask_chat(chat, GREEDY, controls, max_tokens=16, include_reasoning=True)
    caller = replace(Caller("acme", "k"), priority=priority)
    return await cache.look_up(caller, RequestRecord("r", "chat"), ask, [request], INFO, None)


async def begin(cache: Cache, engine: Engine, **options: object) -> Place:
    """A place with its work; nothing is read yet."""
    place = await look_up(cache, **options)  # type: ignore[arg-type]
    assert isinstance(place, Place)
    return place


async def test_a_stored_answer_is_found_while_a_newer_one_is_generated(cache: Cache) -> None:
    """Whoever takes no older one waits for it; nobody else does, least of all who wants a stored one or none."""
    engine = Engine(ANSWER)
    assert await read_all((await begin(cache, engine)).join(engine.start)) == ANSWER[0]
    fresh = await begin(cache, engine, max_age_s=-1.0)
    reader = fresh.join(engine.start)
    assert isinstance(await look_up(cache), Hit)
    assert isinstance(await look_up(cache, only_if_cached=True), Hit)
    again = await begin(cache, engine, max_age_s=-1.0)
    assert again.is_taken
    assert await read_all(reader) == ANSWER[0]


async def test_what_is_only_being_generated_is_not_stored(cache: Cache) -> None:
    """So who wants a stored answer or none is told."""
    reader = (await begin(cache, engine := Engine(ANSWER))).join(engine.start)
    with pytest.raises(NotCached):
        await look_up(cache, only_if_cached=True)
    await read_all(reader)


async def test_who_goes_first_does_not_wait_for_what_goes_last(cache: Cache) -> None:
    """A request of a batch waits in the queue behind all others; nobody of those reads along."""
    reader = (await begin(cache, engine := Engine(ANSWER), priority="batch")).join(engine.start)
    assert (await begin(cache, engine, priority="batch")).is_taken
    assert not (await begin(cache, engine)).is_taken
    await settle()
    await read_all(reader)
    assert isinstance(await look_up(cache), Hit)


async def test_another_embedder_finds_the_very_same_question(store: TieredStore) -> None:
    """What was stored before the semantic tier was switched on, or its model changed, is not thrown away."""
    before, after = cache_over(store), cache_over(store, embedder="minilm")
    await read_all((await begin(before, engine := Engine(ANSWER))).join(engine.start))
    assert isinstance(await look_up(after), Hit)
    assert isinstance(await look_up(before), Hit)
