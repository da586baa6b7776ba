"""`bench engine`: tokens a second through HTTP, as a share of the bare engine's.

Two engines with the same settings live side by side: one behind `forebay serve` with all that users have, one in a
process that calls it itself. They are asked the same in turn, so that a machine that drifts hits both. The client runs
on the same cores and counts against us, but for opening its connections, which clients keep open.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from forebay.bench.client import Client, Target
from forebay.bench.datasets import DatasetOptions, make_sessions
from forebay.bench.datasets.session import Turn
from forebay.bench.flags import COMPLETIONS
from forebay.bench.intervals import ratio_of
from forebay.bench.load import Form
from forebay.bench.own_server import OwnServer, accounting_server
from forebay.bench.process import STOP_TIMEOUT_S, child_environment, stop
from forebay.bench.quick import run_quick
from forebay.errors import ConfigurationError

LOWEST_ID, HIGHEST_ID = 1000, 30_000
"""Token ids that are drawn from, as far as the vocabulary reaches; special tokens lie outside of most."""


class Bare:
    """The process of `bare.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Returns when it is ready."""
        self._process = process
        self.vocab_size = int(self._answer()["vocab_size"])

    def tokens_per_s(self, turns: Sequence[Turn]) -> float:
        assert self._process.stdin is not None
        job = {"prompts": [turn.prompt for turn in turns], "max_tokens": turns[0].max_tokens}
        print(orjson.dumps(job).decode(), file=self._process.stdin, flush=True)
        answer = self._answer()
        return float(answer["tokens"]) / float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(orjson.loads(line))
        raise ConfigurationError(f"The bare engine ended with exit code {self._process.wait()}.")


def run_engine(
    engine: str,
    model: str | None,
    streams: Sequence[int],
    *,
    num_pairs: int,
    input_len: int,
    output_len: int,
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """By number of streams: the ratio and its interval, and the median of both sides' output tokens a second.

    Raises ConfigurationError where an engine does not start or a request fails.
    """
    flags = ["--engine", engine, *(["--model", model] if model else [])]
    found: dict[str, Any] = {"engine": engine, "input_len": input_len, "output_len": output_len, "streams": {}}
    with accounting_server(*flags) as server, _bare(engine, model) as bare:
        token_ids = range(min(LOWEST_ID, bare.vocab_size // 2), min(HIGHEST_ID, bare.vocab_size))
        seed = time.time_ns() % 2**31
        for number in streams:
            options = DatasetOptions(
                num_prompts=number, input_len=input_len, output_len=output_len, token_ids=token_ids
            )
            pairs = [_pair(server, bare, options, seed + pair, pair) for pair in range(num_pairs + 1)][1:]
            through, alone = ([pair[side] for pair in pairs] for side in (0, 1))
            ratio = ratio_of(through, alone)
            found["streams"][str(number)] = {
                "ratio": ratio.median,
                "ratio_95": [ratio.low, ratio.high],
                "pairs": ratio.num_pairs,
                "http_tokens_per_s": statistics.median(through),
                "bare_tokens_per_s": statistics.median(alone),
            }
            show(f"{number} streams: {ratio} of the bare engine's {statistics.median(alone):.0f} tokens/s")
            seed += num_pairs + 1
    return found


def _pair(server: OwnServer, bare: Bare, options: DatasetOptions, seed: int, number: int) -> tuple[float, float]:
    """(through HTTP, bare), output tokens a second. Who begins alternates; pair 0 warms both up."""
    turns = [session.turns[0] for session in make_sessions(options, seed, as_text=False)]
    if number % 2:
        through = run_quick(_through_http(server, turns))
        return through, bare.tokens_per_s(turns)
    alone = bare.tokens_per_s(turns)
    return run_quick(_through_http(server, turns)), alone


async def _through_http(server: OwnServer, turns: Sequence[Turn]) -> float:
    client = Client(Target(server.url, COMPLETIONS, server.key))
    form = Form(None, is_chat=False, ignore_eos=True, extra={"temperature": 0})
    bodies = [form.body([], turn) for turn in turns]
    try:
        await client.open(len(bodies))
        began = time.perf_counter()
        outcomes = await asyncio.gather(*[client.ask(body, usage_only=True) for body in bodies])
        seconds = time.perf_counter() - began
    finally:
        client.close()
    if failed := [outcome for outcome in outcomes if outcome.failure is not None]:
        raise ConfigurationError(f"{len(failed)} requests failed: {failed[0].kind} {failed[0].message}")
    return sum(outcome.output_tokens or 0 for outcome in outcomes) / seconds


@contextmanager
def _bare(engine: str, model: str | None) -> Iterator[Bare]:
    words = [sys.executable, "-m", "forebay.bench.bare", engine, *([model] if model else [])]
    process = subprocess.Popen(  # noqa: S603 - our own program
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment({})
    )
    try:
        yield Bare(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()  # which ends it
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            stop(process, STOP_TIMEOUT_S)
