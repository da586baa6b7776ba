"""vLLM without an engine, on which `benchmarks/front_ends.py` measures servers, and Forebay on it."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from forebay.bench.own_server import accounting_server

pytest.importorskip("vllm")

LAUNCH = str(Path(__file__).parents[2] / "benchmarks" / "no_engine" / "launch.py")


def test_forebay_serves_whole_answers_and_streams_on_it() -> None:
    """Every token is its one word, and usage counts them."""
    with accounting_server("--engine", "vllm", "--max-num-seqs", "64", program=(LAUNCH, "forebay")) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
        model = client.models.list().data[0].id
        whole = client.completions.create(model=model, prompt="One", max_tokens=5)
        assert (whole.choices[0].text, whole.usage and whole.usage.completion_tokens) == (" word" * 5, 5)
        with client.completions.create(
            model=model, prompt="One", max_tokens=7, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        client.close()
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " word" * 7
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7
