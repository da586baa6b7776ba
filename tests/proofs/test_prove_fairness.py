"""What one key's load does to another's chats, and what ten times too much load does to a server."""

from __future__ import annotations

import statistics
from pathlib import Path

from proofs.conftest import Proof
from support.flood import flood
from support.newcomer import time_newcomer
from support.server import ServerProcess
from support.wire import post

HOG, CHAT = "hog-0123456789abcdef", "chat-0123456789abcdef"
NUM_JOBS, NUM_CHATS, STEPS = 200, 30, 3
NUM_SLOTS, REQUEST_S, TIMES, SECONDS, FILL_S = 10, 0.1, 10, 20.0, 1.0
GOODPUT, REFUSAL_S = 0.9, 0.05


async def test_a_newcomers_first_token_on_vllm(tmp_path: Path, proof: Proof) -> None:
    """One key submits 200 long jobs; another's chat takes at most three engine steps more than on the idle engine."""
    server = ServerProcess(tmp_path / "log", ["--engine", "vllm"], {"FOREBAY_API_KEYS": f"{HOG},{CHAT}"})
    server.start(ready_timeout_s=300)
    try:
        timed = await time_newcomer(server.url, HOG, CHAT, num_jobs=NUM_JOBS, num_chats=NUM_CHATS)
    finally:
        server.stop()
    assert timed.waiting > NUM_JOBS // 2
    assert timed.extra_steps[-1] <= STEPS
    proof(
        "newcomer",
        f"Beside {NUM_JOBS} long jobs of one key, another's chat on vLLM has its first token within {STEPS} engine "
        "steps more than alone.",
        chats=NUM_CHATS,
        jobs_running=timed.running,
        jobs_waiting=timed.waiting,
        step_ms=1000 * timed.step_s,
        ttft_ms_idle_median=1000 * statistics.median(timed.idle),
        ttft_ms_beside_median=1000 * statistics.median(timed.beside),
        ttft_ms_beside_most=1000 * max(timed.beside),
        steps_more_median=statistics.median(timed.extra_steps),
        steps_more_most=timed.extra_steps[-1],
    )


async def test_goodput_at_ten_times_the_capacity(tmp_path: Path, proof: Proof) -> None:
    """An engine set to 100 requests a second answers at least 90 of 1,000; 99% of the refusals come within 50 ms."""
    server = ServerProcess(tmp_path / "log", ["--engine", "scripted"], {"FOREBAY_MAX_NUM_SEQS": str(NUM_SLOTS)}).start()
    body = {"prompt": "a", "max_tokens": 1, "metadata": {"forebay_first_token_ms": str(1000 * REQUEST_S)}}
    capacity = NUM_SLOTS / REQUEST_S
    try:
        replies = await flood(
            server.port, post("/v1/completions", body), rate=TIMES * capacity, seconds=SECONDS + FILL_S
        )
    finally:
        server.stop()
    assert {reply.status for reply in replies} == {200, 503}
    began = min(reply.at - reply.seconds for reply in replies) + FILL_S
    counted = [reply for reply in replies if began <= reply.at <= began + SECONDS]
    goodput = sum(reply.status == 200 for reply in counted) / SECONDS / capacity
    refused = sorted(reply.seconds for reply in counted if reply.status == 503)
    p99_s = refused[int(0.99 * len(refused))]
    assert goodput >= GOODPUT
    assert p99_s <= REFUSAL_S
    proof(
        "overload",
        f"At {TIMES} times its capacity the engine is kept busy, and who is refused is told at once.",
        offered_per_s=TIMES * capacity,
        goodput_of_capacity=goodput,
        refused=len(refused),
        refusal_ms_median=1000 * refused[len(refused) // 2],
        refusal_ms_p99=1000 * p99_s,
    )
