"""How long a semantic look-up takes in a scope of many entries, how many a second it bears, and what the loop feels.

The entries are written into the cache's file while no server runs: real questions of `cache_stream/questions.txt`, each
many times with vectors that differ a little, all in the scope of one question that was asked over HTTP.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from cache_load.asking import ANSWER, ask_at, ask_with, latencies_ms, ping, target
from forebay.bench.cores import pinned
from forebay.bench.figures import percentile
from forebay.bench.own_server import OwnServer
from forebay.bench.quick import run_quick
from forebay.cache.analysis import match_form
from forebay.cache.entries import Entry, Seal
from forebay.cache.stores.base import Quotas
from forebay.cache.stores.sqlite_impl import SqliteStore
from forebay.cache.stores.sqlite_rows import FILE_NAME
from forebay.embedding.auto import load_embedder
from forebay.stores.secret import read_or_create_secret
from forebay.types import Delta, Usage

NUM_TEXTS = 1000
"""Different ones among the entries; embedding more takes longer than it shows anything."""
NOISE = 0.3
"""Length of what is added to a vector, so that neighbours are as near as paraphrases are: a cosine of about 0.9."""
DAY_MS = 86_400_000
RATE, SECONDS = 30.0, 40.0
RATES = (45, 60, 80, 100, 125, 150, 200, 250, 300, 400)
STEP_S = 8.0
KEPT_UP_MS = 250.0
"""The 99th percentile beyond which a rate counts as more than it bears."""
EXACT = {"x-cache-control": "exact"}


def fill(folder: Path, num: int, texts: Sequence[str], rng: np.random.Generator) -> int:
    """Returns how many are in the scope of the one question that is there."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        row = file.execute("SELECT scope, tenant, model, epoch, body FROM entries").fetchone()
    scope, tenant, model, epoch, _ = row
    embedder, seal = load_embedder(), Seal(read_or_create_secret(folder), max_bytes=1 << 20)
    texts = texts[:NUM_TEXTS]
    vectors = np.stack([embedder.embed([match_form(text)])[0] for text in texts])
    now = time.time_ns() // 1_000_000
    deltas = tuple(Delta(0, f"{word} ", (number,)) for number, word in enumerate(ANSWER.split()))
    deltas = (*deltas, Delta(0, finish_reason="stop"))
    entries = []
    for number in range(num):
        which = number % len(texts)
        noise = rng.normal(size=vectors.shape[1])
        vector = vectors[which] + NOISE * noise / np.linalg.norm(noise)
        vector = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
        entry = Entry(
            *(secrets.token_hex(16), scope, f"{texts[which]} ({number})", tenant, model, epoch, now, now + DAY_MS),
            *(deltas, Usage(20, len(deltas) - 1), "stop", vector),
        )
        sealed = seal.close(entry)
        assert sealed is not None
        entries.append(sealed)

    async def write() -> int:
        store = SqliteStore(folder, Quotas(1 << 32, 1 << 32), lambda: now)
        await store.add(*entries)
        held = await store.held()
        await store.close()
        return held[tenant].num_entries

    return asyncio.run(write())


def measure(
    start: Callable[[], Any], data: Path, num: int, texts: Sequence[str], core: int | None, show: Callable[[str], None]
) -> dict[str, Any]:
    """`start`: a context with the server, on the same data each time."""
    rng = random.Random(7)
    with start() as server:
        run_quick(ask_with(target(server), ["What is it that begins the scope?"]))
        time.sleep(1)
    num_held = fill(data, num, texts, np.random.default_rng(7))
    show(f"{num_held} entries")
    asked = iter(_wordings(texts[NUM_TEXTS:], rng))
    with start() as server, pinned(core):
        run_quick(ask_with(target(server), [next(asked) for _ in range(50)]))

        def at(rate: float, seconds: float, **headers: str) -> dict[str, Any]:
            questions = [next(asked) for _ in range(int(rate * seconds))]
            outcomes, lag = run_quick(_with_pings(server, questions, rate, seconds, rng, headers))
            counts = {kind: sum(each.cache == kind for each in outcomes) for kind in {each.cache for each in outcomes}}
            found = {**latencies_ms(outcomes), "outcomes": counts, "loop_p999_ms": round(percentile(lag, 99.9), 3)}
            show(f"{rate:g}/s {headers or ''}: {found}")
            return found

        idle = percentile(run_quick(ping(target(server), SECONDS)), 99.9)
        exact, semantic = at(RATE, SECONDS, **EXACT), at(RATE, SECONDS)
        bears = RATE
        for rate in RATES:
            if at(rate, STEP_S)["p99_ms"] > KEPT_UP_MS:
                break
            bears = rate
    return {
        "entries": num_held,
        "rate": RATE,
        "request_with_semantic_look_up": semantic,
        "request_with_exact_look_up": exact,
        "look_up_p50_ms": round(semantic["p50_ms"] - exact["p50_ms"], 3),
        "look_up_p99_ms": round(semantic["p99_ms"] - exact["p50_ms"], 3),
        "bears_requests_a_second": bears,
        "loop_p999_ms_idle": round(idle, 3),
        "loop_p999_ms_more": round(semantic["loop_p999_ms"] - idle, 3),
    }


async def _with_pings(
    server: OwnServer,
    questions: Sequence[str],
    rate: float,
    seconds: float,
    rng: random.Random,
    headers: dict[str, str],
) -> tuple[Any, list[float]]:
    pinging = asyncio.create_task(ping(target(server), seconds))
    outcomes = await ask_at(target(server, **headers), questions, rate, rng)
    return outcomes, await pinging


def _wordings(texts: Sequence[str], rng: random.Random) -> list[str]:
    """Each is asked once, so that none is found by its words; as many as a run can want."""
    return [f"{rng.choice(texts)} I ask for number {number}." for number in range(40_000)]
