"""kill -9, many times, with clients that ask again under their keys."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from forebay.failpoints import FAILPOINTS, KEYED_FAILPOINTS
from idempotency.test_crash import make, storm_through_kills
from proofs.conftest import Proof
from support.crash import ALLOWANCE, Storm, judge, judge_keys

NUM_KILLS = 60
A_LEDGER = 10
"""Kills before a fresh folder: every answer is asked for again after every kill."""


@pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
async def test_killed_sixty_times_with_keys(tmp_path: Path, strict: bool, proof: Proof) -> None:
    """Whoever was answered finds the same bytes in every later process, and no key is billed for two."""
    moments = random.Random()
    answered, again, admitted, recovered = 0, 0, 0, 0
    for block in range(NUM_KILLS // A_LEDGER):
        folder = tmp_path / str(block)
        folder.mkdir()
        server = make(folder, FOREBAY_LEDGER_STRICT=str(strict).lower()).start()
        try:
            account, num_answered, num_again = await storm_through_kills(
                server,
                [moments.randrange(2, 60) for _ in range(A_LEDGER)],
                allowance=0 if strict else ALLOWANCE,
            )
        finally:
            server.stop()
        answered += num_answered
        again += num_again
        admitted += account.num_admitted
        recovered += account.num_recovered
    proof(
        f"crash-keys-{'strict' if strict else 'default'}",
        "After kill -9 every answer that had ended is given again, byte for byte, and no Idempotency-Key has two "
        "settlements that are not of a crash.",
        kills=NUM_KILLS,
        keys_answered=answered,
        keys_asked_again_after_a_crash_had_taken_them=again,
        requests_admitted=admitted,
        requests_in_flight_when_killed=recovered,
        answers_lost=0,
        answers_billed_twice=0,
    )


async def test_killed_at_each_failpoint_with_keys(tmp_path: Path, proof: Proof) -> None:
    """Streamed and not, in both modes, at other requests each time."""
    moments = random.Random()
    answered, admitted, num_kills = 0, 0, 0
    for failpoint in (*FAILPOINTS, *KEYED_FAILPOINTS):
        for strict in (False, True):
            for turn in range(3):
                folder = tmp_path / f"{failpoint}-{strict}-{turn}"
                folder.mkdir()
                mode = {"FOREBAY_LEDGER_STRICT": str(strict).lower()}
                server = make(folder, FOREBAY_FAILPOINT=f"{failpoint}:{moments.randint(5, 40)}", **mode).start()
                try:
                    storm = Storm(server, with_keys=True)
                    await asyncio.wait_for(storm.run(), 30)
                    storm.note_kill()
                    server.env.pop("FOREBAY_FAILPOINT")
                    server.start()
                    await judge_keys(server, storm.answered)
                    allowance = 0 if strict else ALLOWANCE
                    account = judge(server, storm.seen, storm.left_open, allowance=allowance)
                finally:
                    server.stop()
                num_kills += 1
                answered += len(storm.answered)
                admitted += account.num_admitted
    proof(
        "crash-keys-failpoints",
        "The same for kill -9 at each named place between two steps that belong together, in both modes.",
        failpoints=[*FAILPOINTS, *KEYED_FAILPOINTS],
        kills=num_kills,
        keys_answered=answered,
        requests_admitted=admitted,
        answers_lost=0,
        answers_billed_twice=0,
    )
