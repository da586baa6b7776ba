"""Every engine can be asked for one of two words, and how sure it is; the demo model's word is worth nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from asking import settled

from forebay.background import Background
from forebay.cache.verification.asking import Asking, Word
from forebay.cache.verification.check_set import check_set
from forebay.cache.verification.checking import check
from forebay.engines.base import Engine
from forebay.ledger.ledger import Ledger
from forebay.queued import Line
from forebay.stores.database import Database
from forebay.tenants.fairness import FairQueue

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Host:
    """Of an engine that others have loaded."""

    current: Engine


@pytest_asyncio.fixture(loop_scope="session")
async def asking(engine: Engine, tmp_path: Path) -> AsyncIterator[Asking]:
    ledger = Ledger(Database(tmp_path), b"secret", None, strict=False, lease_s=600)
    ledger.begin()
    queue = FairQueue(num_slots=lambda: engine.info.num_slots, num_kept=None, num_open=lambda: 0)
    background = Background(Host(engine), Line(queue, b"secret"), ledger)  # type: ignore[arg-type]
    yield Asking(Host(engine), background)  # type: ignore[arg-type]
    background.close()
    await ledger.close(5)


@pytest.mark.timeout(300)
async def test_an_engine_gives_one_of_two_words(engine: Engine, asking: Asking) -> None:
    """One token, chosen from two, with the odds of the model's own distribution: the same for the same question."""
    before = await settled(engine)
    words = [await asking.ask(check_set("questions")[0].prompt, "acme", 60, wait_s=None) for _ in range(2)]
    first, again = words
    assert isinstance(first, Word)
    assert isinstance(again, Word)
    assert first.score == pytest.approx(again.score, abs=1e-3)
    assert first.num_prompt_tokens == again.num_prompt_tokens > 200
    assert again.num_cached_tokens in (0, *range(first.num_prompt_tokens // 2, first.num_prompt_tokens))
    after = await settled(engine)
    assert after.num_generated_tokens - before.num_generated_tokens == 2


@pytest.mark.timeout(300)
async def test_a_small_model_does_not_pass(engine: Engine, asking: Asking) -> None:
    """The demo model says the same to everything, which is soon found out, or is too slow for this machine; then the
    tier decides without it."""
    checked = await check(asking, check_set("questions"), most_ask_s=60)
    assert checked.result in ("failed", "slow")
    assert checked.grade.same.total + checked.grade.different.total < 60
    assert not checked.grade.passed
