"""kill -9, many times."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from forebay.failpoints import FAILPOINTS
from ledger.test_kill import make, restart, storm_until_killed
from proofs.conftest import Proof
from support.crash import ALLOWANCE, Seen, judge

NUM_KILLS = 60
A_LEDGER = 10
"""Kills before a fresh folder, so that a comparison does not take longer and longer."""

READY_S = 3.0


@pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
async def test_killed_at_sixty_random_moments(tmp_path: Path, strict: bool, proof: Proof) -> None:
    """Nothing lost, nothing settled twice, ready again within 3 s."""
    moments = random.Random()
    allowance = 0 if strict else ALLOWANCE
    took, worst, admitted, recovered, complete = [], 0, 0, 0, 0
    for block in range(NUM_KILLS // A_LEDGER):
        folder = tmp_path / str(block)
        folder.mkdir()
        server = make(folder, strict).start()
        seen: list[Seen] = []
        left_open: set[str] = set()
        try:
            for _ in range(A_LEDGER):
                storm = await storm_until_killed(server, moments.uniform(0.01, 1.0))
                seen += storm.seen
                left_open |= storm.left_open
                took.append(restart(server))
                account = judge(server, seen, left_open, allowance=allowance)
        finally:
            server.stop()
        worst = max(worst, account.worst_gap)
        admitted += account.num_admitted
        recovered += account.num_recovered
        complete += account.num_complete
    assert max(took) <= READY_S
    proof(
        f"crash-random-{'strict' if strict else 'default'}",
        "After kill -9 at a random moment every admitted request has exactly one settlement, "
        f"billed <= generated, and delivered - billed <= {allowance} tokens.",
        kills=NUM_KILLS,
        requests_admitted=admitted,
        requests_in_flight_when_killed=recovered,
        requests_answered_whole=complete,
        lost_settlements=0,
        doubled_settlements=0,
        most_tokens_delivered_but_not_billed=worst,
        ready_again_s_median=statistics.median(took),
        ready_again_s_most=max(took),
    )


async def test_killed_at_each_failpoint_in_both_modes(tmp_path: Path, proof: Proof) -> None:
    """Five times each, at other requests."""
    moments = random.Random()
    worst = {"default": 0, "strict": 0}
    admitted = 0
    for failpoint in FAILPOINTS:
        for strict in (False, True):
            for turn in range(5):
                folder = tmp_path / f"{failpoint}-{strict}-{turn}"
                folder.mkdir()
                server = make(folder, strict, FOREBAY_FAILPOINT=f"{failpoint}:{moments.randint(5, 40)}").start()
                try:
                    storm = await storm_until_killed(server, None)
                    restart(server)
                    account = judge(server, storm.seen, storm.left_open, allowance=0 if strict else ALLOWANCE)
                finally:
                    server.stop()
                mode = "strict" if strict else "default"
                worst[mode] = max(worst[mode], account.worst_gap)
                admitted += account.num_admitted
    proof(
        "crash-failpoints",
        "The same for kill -9 at each named place between two steps that belong together.",
        failpoints=list(FAILPOINTS),
        kills=len(FAILPOINTS) * 2 * 5,
        requests_admitted=admitted,
        most_tokens_delivered_but_not_billed=worst,
    )
