"""The ledger's state machine, at length."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from ledger.test_machine import LedgerMachine, TestLedgerMachine
from proofs.conftest import Proof

RUNS, STEPS = 2_000, 50


def test_two_thousand_runs_of_fifty_steps(proof: Proof) -> None:
    """Random ones, unlike those of `make test`."""
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(TestLedgerMachine.settings, max_examples=RUNS, stateful_step_count=STEPS, derandomize=False),
    )
    proof(
        "machine",
        "Under every order of reserve, checkpoint, settle, crash, retry and expiry the ledger agrees with its model.",
        runs=RUNS,
        steps_a_run=STEPS,
        disagreements=0,
    )
