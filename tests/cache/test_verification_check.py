"""The check set that a model must pass before it is asked anything: who passes, who does not, and how soon."""

from __future__ import annotations

import random

import pytest
import structlog

from forebay.cache.verification.check_set import Task, check_set
from support.verifying import SURE, TRUTH, Opinion, err, knows, obeys, served

PAIR = ("How do I get a visa?", "What do I have to do for a visa?")


async def test_a_model_that_knows_passes() -> None:
    """At start and by itself; status, metrics and log say so."""
    with structlog.testing.capture_logs() as logs:
        async with served() as server:
            assert await server.checked() == {"questions": "earned", "answers": "earned"}
            assert sorted(server.model.asked) == sorted(TRUTH)
            status = await server.status()
            assert status["questions"]["standing"] == "earned"
            assert status["questions"]["same"] == {"yes": 218, "leaning": 0, "no": 0}
            assert server.verification.name == "verification-1"
            assert server.verification.is_worth(300, 0.9)
            assert 0 < server.verification.judge_miss < 0.05
            text = await server.metrics()
            assert 'forebay_cache_verification{standing="earned",task="answers"} 1.0' in text
    told = [(log["task"], log["standing"]) for log in logs if log["event"] == "cache_verification"]
    assert told == [("questions", "earned"), ("answers", "earned")]


async def test_a_model_without_a_template_is_asked_as_it_is() -> None:
    """The text by itself, which it continues."""
    async with served(has_template=False) as server:
        assert await server.checked() == {"questions": "earned", "answers": "earned"}


def by_chance() -> Opinion:
    draw = random.Random(3)
    return lambda asked: draw.choice((-SURE, SURE))


@pytest.mark.parametrize(
    ("opinion", "most_asked"),
    [
        pytest.param(lambda asked: SURE, 20, id="always yes"),
        pytest.param(lambda asked: -SURE, 40, id="always no"),
        pytest.param(by_chance(), 60, id="by chance"),
        pytest.param(lambda asked: -knows(asked), 20, id="always wrong"),
        pytest.param(lambda asked: knows(asked) / SURE, 40, id="right and never sure"),
        pytest.param(err(knows, every=8, of=False), 436, id="takes one trap in eight for the same"),
        pytest.param(obeys, 436, id="obeys what it is to compare"),
    ],
)
async def test_a_model_that_does_not_know_is_not_asked(opinion: Opinion, most_asked: int) -> None:
    """Neither constant answers nor chance nor obedience pass; most are found out early. Then nothing is asked."""
    async with served(opinion) as server:
        assert await server.checked() == {"questions": "failed", "answers": "failed"}
        num_asked = len(server.model.asked)
        assert sum("Question 1" in asked for asked in server.model.asked) <= most_asked
        assert await server.verification.same_question(*PAIR, "acme") is None
        assert await server.verification.same_answer(PAIR[0], "Yes.", "No.", "acme") is None
        assert server.verification.name is None
        assert server.verification.judge_miss == 0
        assert server.verification.is_settled
        assert len(server.model.asked) == num_asked
        assert (await server.reconciled()).drift == {"prompt": 0, "generated": 0}


async def test_an_engine_that_fails_on_every_question_is_left_alone() -> None:
    """After a few of them."""
    async with served(lazy_load=True) as server:
        server.model.metadata["forebay_fail"] = "raise@0"
        await server.services.host.engine()
        assert await server.checked() == {"questions": "unavailable", "answers": "unavailable"}
        assert len(server.model.asked) < 20


async def test_it_can_be_switched_off() -> None:
    """Then nothing is asked, at start or later."""
    async with served(lazy_load=True, cache_verification=False) as server:
        await server.services.host.engine()
        assert server.services.verification is None
        assert await server.status() is None
        assert not server.model.asked


@pytest.mark.parametrize(("task", "num_pairs"), [("questions", 218), ("answers", 94)])
def test_the_check_sets_are_balanced(task: Task, num_pairs: int) -> None:
    """As many pairs that are the same as others, and none twice."""
    checks = check_set(task)
    assert sum(check.same for check in checks) * 2 == len(checks) == 2 * num_pairs
    assert len({check.prompt for check in checks}) == len(checks)
