"""The cache in front of a real model: the demo model, the official client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from support.administrator import OWNER, AdminClient
from support.semantic import let_serve, standing
from support.server import ServerProcess
from support.wire import eventually

MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.prove)])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The semantic tier is ready, the model checked; Transformers reads each question from its beginning, so that to
    check it would take long."""
    env = {"FOREBAY_CACHE": "semantic", "FOREBAY_CACHE_MAX_ERROR_RATE": "0.05", "FOREBAY_API_KEYS": OWNER}
    env["FOREBAY_CACHE_VERIFICATION"] = str(request.param == "vllm").lower()
    running = ServerProcess(tmp_path_factory.mktemp("model") / "log", ["--engine", request.param], env)
    running.start(ready_timeout_s=240)
    with AdminClient(running, OWNER) as owner:
        eventually(lambda: owner.get("GET", "/cache")["semantic"]["state"] == "on", timeout_s=120)
    yield running
    assert running.stop() == 0


def ask(server: ServerProcess, question: str, **fields: object) -> tuple[str, str]:
    """What the cache had, and the text."""
    with openai.OpenAI(
        base_url=server.base_url, api_key=OWNER, max_retries=0, _strict_response_validation=True
    ) as client:
        answer = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": question}], temperature=0, **fields
        )
        return answer.headers["x-cache"], answer.parse().choices[0].message.content or ""


def streamed(server: ServerProcess, question: str, *, max_tokens: int) -> str:
    """The text, of chunks put together."""
    with openai.OpenAI(base_url=server.base_url, api_key=OWNER, max_retries=0) as client:
        chunks = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=max_tokens,
            stream=True,
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.timeout(300)
def test_a_models_answer_is_given_again(real: ServerProcess) -> None:
    """Word for word, whole and streamed, without a step of the engine."""
    question = "What is 2 + 2? Answer with the number only."
    first, text = ask(real, question, max_tokens=16)
    steps = engine_tokens(real)
    assert (first, ask(real, question, max_tokens=16)) == ("miss", ("hit", text))
    assert streamed(real, question, max_tokens=16) == text
    assert engine_tokens(real) == steps


@pytest.mark.timeout(300)
def test_those_who_ask_at_a_time_get_one_answer(real: ServerProcess) -> None:
    """Generated once."""
    question = "Name a river. Answer with one word."
    before = engine_tokens(real)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(real, question, max_tokens=16), range(8)))
    generated = engine_tokens(real) - before
    assert len({text for _, text in answers}) == 1
    assert [outcome for outcome, _ in answers].count("miss") == 1
    assert 0 < generated <= 16


@pytest.mark.timeout(300)
def test_a_rephrased_question_is_observed_then_served(real: ServerProcess) -> None:
    """Without labels it is generated and compared; with labels it has the same text, whole and streamed, and a trap is
    generated."""
    asked, rephrased = "What is the capital of Norway?", "hi, what's the capital of Norway please"
    with AdminClient(real, OWNER) as owner:
        outcome, text = ask(real, asked, max_tokens=24)
        assert outcome == "miss"
        observed = look_ups(real, "observed")
        assert ask(real, f"{rephrased}, thanks", max_tokens=24)[0] == "miss"
        assert look_ups(real, "observed") == observed + 1
        let_serve(owner, "default")
        assert standing(owner, "default")["serving"]
        steps, hits = engine_tokens(real), look_ups(real, "hit")
        assert ask(real, rephrased, max_tokens=24) == ("hit", text)
        assert streamed(real, f"please, {rephrased}", max_tokens=24) == text
        assert look_ups(real, "hit") == hits + 2
        assert engine_tokens(real) == steps
        assert ask(real, "What is the capital of Sweden?", max_tokens=24)[0] == "miss"
        assert engine_tokens(real) > steps


def engine_tokens(server: ServerProcess) -> float:
    return metric(server, "forebay_engine_generated_tokens_total")


def look_ups(server: ServerProcess, outcome: str) -> float:
    """Of the semantic tier."""
    return metric(server, f'forebay_cache_lookups_total{{outcome="{outcome}",tier="semantic"}}')


def metric(server: ServerProcess, name: str) -> float:
    """0 before it was counted."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)
