"""The main job on real engines: the official client and the demo model, over HTTP, on vLLM and on Transformers."""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Iterator

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay.engines.vllm_impl.thread_plan import plan_threads
from forebay.settings import Settings
from support.newcomer import time_newcomer
from support.server import ServerProcess
from support.wire import eventually

MODEL = "SmolLM2-135M-Instruct"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
KEY, OTHER_KEY = "real-key-0123456789", "other-key-0123456789"
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on the demo model with the settings that a user gets, and two keys."""
    running = ServerProcess(
        tmp_path_factory.mktemp(request.param) / "log",
        ["--engine", request.param],
        {"FOREBAY_API_KEYS": f"{KEY},{OTHER_KEY}"},
    )
    running.start(ready_timeout_s=240)
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(real: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=real.base_url, api_key=KEY, max_retries=0, _strict_response_validation=True) as client:
        yield client


def running_sequences(real: ServerProcess) -> int:
    queue = httpx.get(f"{real.url}/stats", headers=HEADERS, timeout=10).json()["queue"]
    return int(queue["running"] + queue["waiting"])


@pytest.mark.timeout(300)
def test_the_model_answers_a_question(client: openai.OpenAI) -> None:
    """The model itself speaks: a question with one short answer gets it, the same whole and streamed."""
    question = [{"role": "user", "content": "What is 2 + 2? Answer with the number only."}]
    whole = client.chat.completions.create(model=MODEL, messages=question, temperature=0, max_tokens=24)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=question,
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "4" in (whole.choices[0].message.content or "")
    assert streamed == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_log_probabilities_describe_the_answer(client: openai.OpenAI) -> None:
    """The logprobs of a greedy answer spell it, and each chosen token is the likeliest."""
    answer = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=0, max_tokens=12, logprobs=True, top_logprobs=3
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    spelled = bytes(byte for token in content for byte in token.bytes or []).decode()
    assert spelled.removesuffix("<|im_end|>") == choice.message.content
    for token in content:
        assert token.logprob >= token.top_logprobs[0].logprob - 1e-4


def test_stop_choices_and_seed(client: openai.OpenAI) -> None:
    """A stop string ends every choice before it; a seed repeats an answer, and choices differ from each other."""
    ask = {"model": MODEL, "messages": CAPITAL, "n": 3, "seed": 7, "temperature": 1.0, "max_tokens": 24}
    first = client.chat.completions.create(**ask, stop=["."])
    again = client.chat.completions.create(**ask, stop=["."])
    texts = [choice.message.content or "" for choice in first.choices]
    assert all("." not in text for text in texts)
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in again.choices]


def test_completions_take_token_ids(client: openai.OpenAI, real: ServerProcess) -> None:
    """A text and its token ids are the same prompt."""
    text = "The three primary colors are red,"
    asked = httpx.post(f"{real.url}/tokenize", json={"prompt": text}, headers=HEADERS, timeout=10)
    tokens = asked.json()["tokens"]
    ask = {"model": MODEL, "temperature": 0, "max_tokens": 8}
    assert (
        client.completions.create(prompt=text, **ask).choices[0].text
        == client.completions.create(prompt=tokens, **ask).choices[0].text
    )


def test_a_client_that_leaves_frees_the_engine(real: ServerProcess) -> None:
    """A stream whose client resets the connection stops generating at once."""
    body = json.dumps({"messages": CAPITAL, "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", real.port)) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(body)) + body
        )
        assert b"data: " in sock.recv(65536) + sock.recv(65536)
        assert running_sequences(real) == 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    deadline = time.monotonic() + 5
    while running_sequences(real) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_sequences(real) == 0


def test_what_runs_is_told(real: ServerProcess) -> None:
    """/model/info names engine, device and what the engine chose; /metrics holds the engine's own where it has some."""
    info = httpx.get(f"{real.url}/model/info", headers=HEADERS, timeout=10).json()
    assert info["names"] == [MODEL]
    assert info["details"]
    assert info["limits"]["max_model_len"] == 8192
    metrics = metrics_of(real)
    assert 'forebay_tokens_total{kind="completion"}' in metrics
    assert ("vllm:" in metrics) == (info["engine"] == "vllm")


def test_the_engines_own_metrics_count_what_was_asked(client: openai.OpenAI, real: ServerProcess) -> None:
    """Tokens of a request appear in our counter; where vLLM runs in its own, and the time between each two of them."""
    expected = {"forebay_tokens_total": 5.0}
    if "vllm:" in metrics_of(real):
        expected |= {
            "vllm:generation_tokens_total": 5.0,
            "vllm:inter_token_latency_seconds_count": 4.0,
            "vllm:request_generation_tokens_sum": 5.0,
        }

    def read() -> dict[str, float]:
        return {name: counted(metrics_of(real), name) for name in expected}

    before = read()
    client.completions.create(model=MODEL, prompt="Once", max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
    deadline = time.monotonic() + 15
    while (grown := {name: now - before[name] for name, now in read().items()}) != expected:
        assert time.monotonic() < deadline, grown
        time.sleep(0.2)


@pytest.mark.parametrize("real", ["vllm"], indirect=True)
def test_the_models_threads_have_a_core_each(real: ServerProcess) -> None:
    """Those that compute and no others: what the engine and the compiler start beside them runs where it likes. The
    event loop runs where the engine's main thread does not."""
    everywhere, cores = os.sched_getaffinity(0), plan_threads(Settings(engine="vllm")).own_cpus
    if not cores or len(everywhere) == 1:
        pytest.skip("there are not as many threads as cores, or there is one")
    assert real.process is not None
    children = psutil.Process(real.process.pid).children()
    (engine,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
    affinities = [os.sched_getaffinity(thread.id) for thread in engine.threads()]
    bound = [cpus for cpus in affinities if cpus != everywhere]
    assert sorted(bound, key=min) == [{core} for core in sorted(cores)]
    assert len(affinities) > len(bound)
    loop, main = os.sched_getaffinity(real.process.pid), os.sched_getaffinity(engine.pid)
    assert loop == everywhere - main


@pytest.mark.parametrize("real", ["vllm"], indirect=True)
async def test_a_newcomer_waits_behind_nobodys_jobs(real: ServerProcess) -> None:
    """With 200 long jobs of one key another key's chat has its first token within three engine steps more than on an
    idle engine: no slot has to come free for it."""
    timed = await time_newcomer(real.url, KEY, OTHER_KEY, num_chats=5)
    assert timed.running >= 60
    assert timed.waiting >= 130
    assert statistics.median(timed.extra_steps) <= 3
    eventually(lambda: running_sequences(real) == 0)


def metrics_of(real: ServerProcess) -> str:
    return httpx.get(f"{real.url}/metrics", timeout=10).text


def counted(metrics: str, name: str) -> float:
    """The counter's completion tokens: vLLM's counts nothing else."""
    families = text_string_to_metric_families(metrics)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels.get("kind", "completion") == "completion"
    )
