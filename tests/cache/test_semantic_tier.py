"""The semantic tier by itself: an embedder that fails or hangs, look-ups that do not pay, a model that is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest

from forebay.cache.aims import Aims
from forebay.cache.calibration import Calibration, Probability, load_calibration
from forebay.cache.costs import CostRule, Costs
from forebay.cache.index import Index
from forebay.cache.label_file import LabelFile
from forebay.cache.policy import Access
from forebay.cache.semantic import LOOK_S, NOTHING, SemanticTier, Sighting
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.tiered import TieredStore
from forebay.embedding.auto import EMBEDDER
from forebay.embedding.base import Embedder
from forebay.embedding.batcher import EmbeddingBatcher
from forebay.engines.base import EngineInfo
from forebay.stores.database import Database
from support.cache_stores import AMPLE, Clock
from support.embedders import ToldEmbedder
from support.entries import embedding, entry, seal
from support.tiers import eventually
from support.told_word import ToldWord

ACCESS = Access("semantic", "semantic")
INFO = EngineInfo("scripted", "m", None, 100, 10, 1, "cpu", "none")
STORED = "How do I reset my password?"


@asynccontextmanager
async def tier(
    folder: Path,
    load: Callable[[], Embedder],
    *,
    costs: Costs | None = None,
    verifier: ToldWord | None = None,
    calibration: Calibration | None = None,
    is_up: bool = True,
    age_s: float = 0,
) -> AsyncIterator[SemanticTier]:
    """Over a memory tier with one entry, of the scope `s1`."""
    database = Database(folder)
    database.open()
    database.begin()
    memory = MemoryStore(AMPLE, Clock(), index=Index())
    store = TieredStore(MemoryStore(AMPLE, Clock()), memory)
    stored = replace(
        entry("e1", text=STORED, vector=embedding(1, 1, 1, 1, dim=4)), created_at=round((time.time() - age_s) * 1000)
    )
    sealed = seal().close(stored)
    assert sealed is not None
    memory.put(sealed)
    made = SemanticTier(
        EmbeddingBatcher(load),
        calibration or load_calibration(EMBEDDER),
        store,
        seal(),
        LabelFile(database, lambda _: Aims(0.05)),
        costs or Costs(),
        verifier,
    )
    made.begin()
    await until(lambda: made.state == ("on" if is_up else "failed"))
    yield made
    await made.close()
    await store.close()
    await database.close(5)


class Held(Calibration):
    """Says nothing before it may."""

    asked = threading.Event()
    go = threading.Event()

    def probability(self, features: Sequence[float]) -> Probability:
        self.asked.set()
        assert self.go.wait(10)
        return super().probability(features)


def held() -> Held:
    Held.asked.clear()
    Held.go.clear()
    shipped = load_calibration(EMBEDDER)
    return Held(*(getattr(shipped, field.name) for field in fields(shipped)))


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def look(of: SemanticTier, text: str = "how can I reset my password", access: Access = ACCESS) -> Sighting:
    return await of.look("acme", "s1", text, access, INFO, is_wanted=lambda: True)


async def test_what_is_near_is_ruled_on(tmp_path: Path) -> None:
    """In its own scope alone; a request that only stores gets its embedding."""
    async with tier(tmp_path, ToldEmbedder) as of:
        found = await look(of)
        assert found.candidate is not None
        assert (found.candidate.entry.text, found.candidate.ruling.action) == (STORED, "observe")
        elsewhere = await of.look("acme", "s2", STORED, ACCESS, INFO, is_wanted=lambda: True)
        assert (elsewhere.candidate, elsewhere.embedding) == (None, found.embedding)
        only_stores = await look(of, access=Access("off", "semantic"))
        assert (only_stores.candidate, only_stores.embedding) == (None, found.embedding)
        assert (await look(of, "how do I not reset my password")).candidate is None
        assert of.outcomes == {"observed": 1, "none": 1, "refused": 1}


async def test_an_embedder_that_fails_is_a_miss(tmp_path: Path) -> None:
    """Counted, never raised; once it works again, so does the tier."""
    told = ToldEmbedder()
    async with tier(tmp_path, lambda: told) as of:
        told.broken = True
        assert [await look(of, f"Question {i}?") for i in range(3)] == [Sighting()] * 3
        told.broken = False
        assert (await look(of)).candidate is not None
        assert of.outcomes == {"failed": 3, "observed": 1}


async def test_an_embedder_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """A request goes on after its time, without what it waited for."""
    told = ToldEmbedder()
    async with tier(tmp_path, lambda: told) as of:
        told.hanging = True
        began = time.monotonic()
        assert await look(of) == Sighting()
        assert LOOK_S <= time.monotonic() - began < LOOK_S + 1
        assert of.outcomes == {"timeout": 1}
        told.go.set()
        await until(lambda: told.num_texts == 2)
        assert (await look(of)).candidate is not None


async def test_the_loop_goes_on_while_it_is_decided(tmp_path: Path) -> None:
    """However long the words of two messages take."""
    async with tier(tmp_path, ToldEmbedder, calibration=held()) as of:
        looking = asyncio.create_task(look(of))
        await until(Held.asked.is_set)
        Held.go.set()
        assert (await looking).candidate is not None


async def test_a_decision_that_takes_too_long_holds_nobody_up(tmp_path: Path) -> None:
    """A request goes on after its time, with its embedding, as if nothing were near."""
    async with tier(tmp_path, ToldEmbedder, calibration=held()) as of:
        found = await look(of)
        Held.go.set()
        assert (found.candidate, found.embedding is None) == (None, False)
        assert of.outcomes == {"timeout": 1}


async def test_an_embedder_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The tier says so, and every look-up finds nothing."""

    def fail() -> Embedder:
        raise OSError("no such file")

    async with tier(tmp_path, fail, is_up=False) as of:
        assert await look(of) == Sighting()
        assert of.outcomes == {}


async def test_look_ups_that_do_not_pay_are_left_out(tmp_path: Path) -> None:
    """Nothing is embedded meanwhile; after the pause it is tried again."""
    told, costs = ToldEmbedder(), Costs(CostRule(span=10, pause=20, longest_pause=20))
    async with tier(tmp_path, lambda: told, costs=costs) as of:
        costs.generated(0.000_001)
        for i in range(10):
            await of.look("acme", "s2", f"Question {i}?", ACCESS, INFO, is_wanted=lambda: True)
        assert of.state == "off"
        num_texts = told.num_texts
        for i in range(20):
            await of.look("acme", "s2", f"Question {10 + i}?", ACCESS, INFO, is_wanted=lambda: True)
        assert told.num_texts == num_texts
        assert (of.state, of.outcomes["skipped"]) == ("on", 20)
        assert (await look(of)).candidate is not None


UNSURE = "how can I go about resetting my password online"


@pytest.mark.parametrize(("says", "raised"), [(0.9, True), (0.1, False)])
async def test_a_model_is_asked_where_the_decision_is_unsure(tmp_path: Path, says: float, raised: bool) -> None:
    """What it says moves the score; what is sure, or refused by a guard, is not its business."""
    async with tier(tmp_path / "without", ToldEmbedder) as of:
        before = await look(of, UNSURE)
        assert before.candidate is not None
    verifier = ToldWord(of_questions=says, name="asked")
    async with tier(tmp_path / "with", ToldEmbedder, verifier=verifier) as of:
        found = await look(of, UNSURE)
        assert found.candidate is not None
        assert verifier.pairs == [(UNSURE, STORED)]
        assert (found.candidate.ruling.score > before.candidate.ruling.score) is raised
        await look(of, "how do I not reset my password")
        await look(of, "how can I reset my password")
        assert len(verifier.pairs) == 1
        assert "asked" in of.source(INFO)


async def test_without_the_models_word_nothing_unsure_is_decided(tmp_path: Path) -> None:
    """It is busy: a pair that it might have spoken against is no hit, no observation and no label."""
    async with tier(tmp_path, ToldEmbedder, verifier=ToldWord(name="asked")) as of:
        assert (await look(of, UNSURE)).candidate is None
        assert of.outcomes["unsure"] == 1
        assert (await look(of)).candidate is not None


async def test_a_model_that_has_not_earned_it_is_not_asked(tmp_path: Path) -> None:
    """Then all is as without it; until that is known, nothing is looked up."""
    verifier = ToldWord()
    async with tier(tmp_path, ToldEmbedder, verifier=verifier) as of:
        assert (await look(of, UNSURE)).candidate is not None
        assert verifier.pairs == []
        assert "asked" not in of.source(INFO)
        verifier.is_settled = False
        assert of.state == "loading"
        assert await look(of) == NOTHING


async def test_what_is_of_no_use_is_not_ruled_on(tmp_path: Path) -> None:
    """An answer that is older than the request allows, and one for which it waits no longer."""
    async with tier(tmp_path, ToldEmbedder, age_s=60) as of:
        assert (await look(of, access=Access("semantic", "semantic", max_age_s=50))).candidate is None
        assert (await look(of, access=Access("semantic", "semantic", max_age_s=70))).candidate is not None
        unwanted = await of.look("acme", "s1", STORED, ACCESS, INFO, is_wanted=lambda: False)
        assert unwanted.candidate is None
        assert of.outcomes == {"none": 1, "observed": 1}
