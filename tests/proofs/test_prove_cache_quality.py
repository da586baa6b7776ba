"""What the semantic tier's decision serves of repeats, and of traps, in pairs and in conversations."""

from __future__ import annotations

import json
import subprocess
import sys

from proofs.conftest import ROOT, Proof

LEAST_SERVED, MOST_WRONG = 0.35, 1


def test_repeats_are_served_and_traps_are_not(proof: Proof) -> None:
    """Public pairs by cross-validation in five folds, conversations by the shipped model."""
    script = [sys.executable, "benchmarks/cache_quality.py"]
    found = json.loads(subprocess.run(script, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
    validated, talked = found["cross_validated"], found["conversations"]
    proof(
        "cache-quality",
        f"Of {found['pairs']} public pairs, in cross-validation, the decision serves at least {LEAST_SERVED:.0%} of "
        f"the repeats and answers at most {MOST_WRONG} trap; of {talked['traps']} pairs of conversations whose last "
        "messages are alike and whose earlier turns are not, none is answered from the other.",
        **{name: value for name, value in found.items() if name not in ("pairs", "guards")},
    )
    assert validated["served_of_equal"] >= LEAST_SERVED
    assert validated["traps_answered"] <= MOST_WRONG
    assert talked["traps_answered_inside_their_scope"] == 0
    assert talked["repeats_answered_inside_their_scope"] == talked["repeats_answered_on_the_last_message_alone"]
