"""Our load client and vLLM's measure the same on the same server."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proofs.conftest import Proof
from support.command import forebay
from support.server import ServerProcess

pytest.importorskip("vllm")

ROUNDS = 3
TOLERANCE = 0.05
REQUESTS, CONNECTIONS, WARMUPS, TOKENS = "320", "16", "16", "64"
FIELDS = ("request_throughput", "output_throughput", *(f"median_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el")))
VLLM_BENCH = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def ours(server: ServerProcess, folder: Path, number: int) -> dict[str, Any]:
    words = ["--base-url", server.url, "--num-prompts", REQUESTS, "--max-concurrency", CONNECTIONS, "--ignore-eos"]
    words += ["--num-warmups", WARMUPS, "--input-len", TOKENS, "--output-len", TOKENS]
    ran = forebay("bench", "serve", *words, "--result-dir", str(folder), "--label", f"ours{number}", data_dir=folder)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads((folder / f"ours{number}-conc{CONNECTIONS}.json").read_bytes()))


def vllms(server: ServerProcess, folder: Path, number: int, tokenizer: Path) -> dict[str, Any]:
    words = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", server.url]
    words += ["--model", "scripted", "--tokenizer", str(tokenizer), "--dataset-name", "random", "--disable-tqdm"]
    words += ["--random-input-len", TOKENS, "--random-output-len", TOKENS, "--num-prompts", REQUESTS, "--ignore-eos"]
    words += ["--max-concurrency", CONNECTIONS, "--num-warmups", WARMUPS, "--percentile-metrics", "ttft,tpot,itl,e2el"]
    words += ["--save-result", "--result-dir", str(folder), "--result-filename", f"vllm{number}.json"]
    ran = subprocess.run(
        [sys.executable, "-c", VLLM_BENCH, *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads((folder / f"vllm{number}.json").read_bytes()))


def test_vllm_bench_serve_agrees(make_server: Callable[..., ServerProcess], tmp_path: Path, proof: Proof) -> None:
    """The median of three rounds in turn, each figure within 5%."""
    delays = ["--scripted-first-token-ms", "150", "--scripted-inter-token-ms", "10"]
    server = make_server("--engine", "scripted", *delays)
    tokenizer = Path(forebay("model", "prepare", data_dir=tmp_path).stdout.strip())
    rounds = [(ours(server, tmp_path, n), vllms(server, tmp_path, n, tokenizer)) for n in range(ROUNDS)]
    ratios = {field: statistics.median(mine[field] / other[field] for mine, other in rounds) for field in FIELDS}
    assert all(abs(ratio - 1) <= TOLERANCE for ratio in ratios.values()), ratios
    assert {mine["total_output_tokens"] for mine, _ in rounds} == {other["total_output_tokens"] for _, other in rounds}
    proof(
        "benchmarks",
        "`forebay bench serve` and `vllm bench serve` measure the same on the same server, within 5%.",
        rounds=ROUNDS,
        ratios={field: round(ratio, 4) for field, ratio in ratios.items()},
    )
