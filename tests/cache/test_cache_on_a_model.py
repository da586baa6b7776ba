"""The exact tier in front of a real model: Transformers, the demo model, the official client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from support.server import ServerProcess

pytestmark = pytest.mark.prove

MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = ServerProcess(
        tmp_path_factory.mktemp("model") / "log", ["--engine", "transformers"], {"FOREBAY_CACHE": "exact"}
    )
    running.start(ready_timeout_s=240)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(real: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=real.base_url, api_key="none", max_retries=0, _strict_response_validation=True) as made:
        yield made


def ask(client: openai.OpenAI, question: str) -> tuple[str, str]:
    """What the cache had, and the text."""
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=16
    )
    return answer.headers["x-cache"], answer.parse().choices[0].message.content or ""


@pytest.mark.timeout(300)
def test_a_models_answer_is_given_again(real: ServerProcess, client: openai.OpenAI) -> None:
    """Word for word, whole and streamed, without a step of the engine."""
    question = "What is 2 + 2? Answer with the number only."
    first, text = ask(client, question)
    steps = engine_tokens(real)
    assert (first, ask(client, question)) == ("miss", ("hit", text))
    chunks = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=16, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert engine_tokens(real) == steps


@pytest.mark.timeout(300)
def test_those_who_ask_at_a_time_get_one_answer(real: ServerProcess, client: openai.OpenAI) -> None:
    """Generated once."""
    question = "Name a river. Answer with one word."
    before = engine_tokens(real)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client, question), range(8)))
    generated = engine_tokens(real) - before
    assert len({text for _, text in answers}) == 1
    assert [outcome for outcome, _ in answers].count("miss") == 1
    assert 0 < generated <= 16


def engine_tokens(server: ServerProcess) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("forebay_engine_generated_tokens_total ")]
    return float(line.split()[1])
