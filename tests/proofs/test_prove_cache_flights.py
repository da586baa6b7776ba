"""Single-flight at every token: whoever began an answer leaves or fails, and everybody else has all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forebay.engines.scripted.tokenizer import encode_plain
from proofs.conftest import Proof
from support.cached import TEXT, Asker, cached_server, text_of
from support.flights import NO_DRIFT, Leader, follow
from support.leaving import WAYS
from support.slow_readers import SETTINGS, crowd
from support.witness import Witness

NUM_TOKENS = len(encode_plain(TEXT))
NUM_FOLLOWERS = 4
SOON = {"forebay_script": TEXT, "forebay_first_token_ms": "250", "forebay_inter_token_ms": "2"}
SLOW_READERS, LONG = 100, 12_000
MOST_GROWTH_MIB = 100
"""A client that does not read is sent 64 KiB ahead by the server itself, and what is encoded is in flight."""


@pytest.mark.parametrize("how", [*WAYS, "engine"])
def test_killed_at_every_token(how: str, tmp_path: Path, proof: Proof) -> None:
    """The engine runs once more where it was the engine that failed, and not at all where it was a client."""
    num_runs = num_whole = 0
    with (
        cached_server(tmp_path) as server,
        closing(Asker(server)) as asker,
        closing(Witness(server)) as witness,
        ThreadPoolExecutor(NUM_FOLLOWERS) as pool,
    ):
        for num_tokens in range(NUM_TOKENS + 1):
            question, before = f"At token {num_tokens}?", len(witness.seen())
            script: dict[str, Any] = {**SOON, **({"forebay_fail": f"raise@{num_tokens}"} if how == "engine" else {})}
            leader = Leader(server, witness, question, metadata=script)
            asked = follow(asker, question, NUM_FOLLOWERS, pool, metadata=SOON)
            if how != "engine":
                leader.read(num_tokens)
                WAYS[how](leader.sock)
            num_whole += sum(text_of(future.result()) == TEXT for future in asked)
            leader.sock.close()
            num_runs += len(witness.seen()) - before
            assert asker.outcome(question) == "hit"
        drift, faults = asker.drift(), asker.ledger.faults()
    proof(
        f"cache-killed-by-{how.lower()}",
        "Whoever began an answer that others read ends before any of its tokens: all others have all of it.",
        tokens=NUM_TOKENS,
        followers_each=NUM_FOLLOWERS,
        whole_answers=num_whole,
        runs_of_the_engine=num_runs,
        drift=drift,
        ledger_faults=len(faults),
    )
    assert num_whole == NUM_FOLLOWERS * (NUM_TOKENS + 1)
    assert num_runs == (NUM_TOKENS + 1) * (2 if how == "engine" else 1)
    assert drift == NO_DRIFT
    assert not faults


def test_a_hundred_who_do_not_read(tmp_path: Path, proof: Proof) -> None:
    """They cost bounded memory, slow nobody, and find everything when they come back to it."""
    with cached_server(tmp_path, **SETTINGS) as server, closing(Asker(server)) as asker:
        crowd(server, asker, num_slow=1, num_tokens=LONG)
        alone = crowd(server, asker, num_slow=2, num_tokens=LONG)
        seen = crowd(server, asker, num_slow=SLOW_READERS, num_tokens=LONG)
        drift, faults = asker.drift(), asker.ledger.faults()
    proof(
        "cache-slow-readers",
        "Readers of a shared answer who do not read slow neither the engine nor the others, and cost bounded memory.",
        slow_readers=SLOW_READERS,
        tokens=LONG,
        engine_s=round(seen.engine_s, 2),
        others_had_it_after_s=round(seen.fast_s, 2),
        others_had_it_after_s_with_two_slow_ones=round(alone.fast_s, 2),
        server_grew_mib=round(seen.growth_mib, 1),
        whole_answers=seen.whole,
    )
    assert seen.whole == SLOW_READERS + 4
    assert seen.growth_mib < MOST_GROWTH_MIB
    assert drift == NO_DRIFT
    assert not faults
