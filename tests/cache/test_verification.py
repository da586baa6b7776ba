"""A model that has passed the check set: what it is asked, what that costs, who pays, and when it is left alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from forebay.ledger.own import OWN
from forebay.ledger.verify import verify
from forebay.stores.secret import read_or_create_secret
from forebay.stores.sqlite import open_for_reading
from forebay.types import NO_WORK
from support.verifying import SURE, Served, served, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAIR = ("How do I get a visa?", "What do I have to do for a visa?")
NO_DRIFT = {"prompt": 0, "generated": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Served]:
    """One slot. Its engine may die once."""
    async with served(max_num_seqs=1, engine_restarts=1) as server:
        assert await server.checked() == {"questions": "earned", "answers": "earned"}
        yield server


@pytest.fixture
def server(shared: Served) -> Served:
    """Says no to what is not in the check set, at once."""
    shared.model.opinion = lambda asked: -SURE
    shared.model.metadata.clear()
    return shared


async def test_its_word_is_had(server: Served) -> None:
    """On questions as a chance, on answers as a judgement; metrics count both."""
    assert await server.verification.same_question(*PAIR, "acme") == 0.0
    assert await server.verification.same_answer(PAIR[0], "In 3 days.", "In 4 days.", "acme") is False
    server.model.opinion = lambda asked: SURE
    ratio = (await server.status())["questions"]["ratio"]
    chance = await server.verification.same_question(*PAIR, "acme")
    assert chance == pytest.approx(ratio / (1 + ratio), abs=1e-4)
    assert await server.verification.same_answer(PAIR[0], "In 3 days.", "Three days.", "acme") is True
    text = await server.metrics()
    for outcome in ("yes", "no"):
        for task in ("questions", "answers"):
            assert f'forebay_cache_verification_asks_total{{outcome="{outcome}",task="{task}"}} 1.0' in text


async def test_a_question_costs_one_short_prefill(server: Served) -> None:
    """One token; of its prompt only what comes after the instruction and the stored question."""
    await server.verification.same_question("How do I get there?", PAIR[0], "acme")
    before, text = server.services.host.work(), await server.metrics()
    await server.verification.same_question(PAIR[1], PAIR[0], "acme")
    after = server.services.host.work()
    assert after.generated_tokens - before.generated_tokens == 1
    assert 0 < after.prompt_tokens - before.prompt_tokens < 100
    found, found_before = (float(re.findall(r'{found="cached"} (\S+)', t)[0]) for t in (await server.metrics(), text))
    assert found - found_before > 700


async def test_tenants_do_not_share_what_was_read(server: Served) -> None:
    """What one tenant's question has left in the prefix cache makes none of another's quicker: nothing can be timed."""
    costs = []
    for tenant in ("first", "first", "second"):
        before = server.services.host.work()
        await server.verification.same_question(*PAIR, tenant)
        costs.append(server.services.host.work().prompt_tokens - before.prompt_tokens)
    assert costs[1] < costs[0] == costs[2]


async def test_nobody_is_charged_and_the_ledger_is_exact(server: Served) -> None:
    """All that was asked is in rows of the server's own, uncharged; the engine's counters agree to the token, between
    requests of clients, and the ledger verifies."""
    before = await server.reconciled()
    num_asked = len(server.model.asked)
    answered = await server.ask()
    await server.verification.same_question(*PAIR, "acme")
    assert answered.status_code == 200
    found = await server.reconciled()
    assert found.drift == before.drift == NO_DRIFT
    usage = answered.json()["usage"]
    assert found.billed.completion_tokens - before.billed.completion_tokens == usage["completion_tokens"]
    assert found.billed.prompt_tokens - before.billed.prompt_tokens == usage["prompt_tokens"]
    assert before.uncharged.completion_tokens == num_asked
    assert found.uncharged.completion_tokens == num_asked + 1
    folder = server.services.database.folder
    file = open_for_reading(folder)
    assert verify(file, read_or_create_secret(folder)) == []
    own = "SELECT DISTINCT tenant, cost FROM entries WHERE kind = 'uncharged' OR tenant = ?"
    assert file.execute(own, (OWN.tenant,)).fetchall() == [(OWN.tenant, 0)]
    file.close()


async def test_the_time_limit_aborts_the_engine(server: Served) -> None:
    """A question that takes too long comes to nothing within its second, and leaves nothing running or uncounted."""
    server.model.metadata["forebay_first_token_ms"] = "60000"
    assert await asyncio.wait_for(server.verification.same_question(*PAIR, "acme"), 5) is None
    await until(lambda: not server.services.host.num_sequences())
    assert 'asks_total{outcome="slow",task="questions"} 1.0' in await server.metrics()
    assert (await server.reconciled()).drift == NO_DRIFT


async def test_what_is_no_longer_wanted_is_aborted(server: Served) -> None:
    """Whoever asked leaves, and the engine is told."""
    server.model.metadata["forebay_first_token_ms"] = "60000"
    asking = asyncio.create_task(server.verification.same_question(*PAIR, "acme"))
    await until(lambda: server.services.host.num_sequences() > 0)
    asking.cancel()
    await until(lambda: not server.services.host.num_sequences())
    with pytest.raises(asyncio.CancelledError):
        await asking
    found = await server.reconciled()
    assert (found.in_flight, found.drift) == (NO_WORK, NO_DRIFT)


async def test_clients_go_first(server: Served) -> None:
    """While the engine has no slot to spare no question is put to it, and later again."""
    num_asked = len(server.model.asked)
    metadata = {"forebay_script": "word " * 20, "forebay_inter_token_ms": "20"}
    answer = asyncio.create_task(server.ask(metadata=metadata, max_tokens=100))
    await until(lambda: server.services.host.num_sequences() > 0)
    assert await server.verification.same_question(*PAIR, "acme") is None
    assert len(server.model.asked) == num_asked
    assert (await answer).status_code == 200
    assert await server.verification.same_question(*PAIR, "acme") is not None


async def test_an_engine_that_is_gone_answers_nothing(server: Served) -> None:
    """Nor does one that dies of the question; once it is back its word counts again, without another check."""
    server.model.metadata["forebay_fail"] = "die@0"
    assert await server.verification.same_question(*PAIR, "acme") is None
    server.model.metadata.clear()
    assert await server.verification.same_question(*PAIR, "acme") is None
    num_asked = len(server.model.asked)
    await until(lambda: server.services.host.num_restarts == 1 and server.services.host.current is not None)
    assert await server.verification.same_question(*PAIR, "acme") is not None
    assert len(server.model.asked) == num_asked + 1
    assert (await server.reconciled()).drift == NO_DRIFT
