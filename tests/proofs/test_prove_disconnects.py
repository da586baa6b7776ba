"""Every place at which a client may leave a stream."""

from __future__ import annotations

import statistics
from contextlib import closing
from pathlib import Path

from proofs.conftest import Proof
from support.leaving import WAYS, leave_after
from support.ledger import LedgerFile
from support.server import journalled_server
from support.witness import Witness

NOTICED_S = 0.25


def test_after_each_number_of_tokens_up_to_64(tmp_path: Path, proof: Proof) -> None:
    """By FIN and by RST: aborted within 250 ms, billed what was generated."""
    with journalled_server(tmp_path) as server, closing(Witness(server)) as witness:
        departures = [leave_after(server, witness, num_tokens, way) for num_tokens in range(65) for way in sorted(WAYS)]
        assert LedgerFile(server.data_dir).faults() == []
    assert all(one.billed == one.generated >= one.read for one in departures)
    aborts = sorted(one.abort_s for one in departures)
    assert aborts[-1] <= NOTICED_S
    proof(
        "disconnects",
        "A client that leaves after 0 to 64 tokens, by FIN or RST, is billed exactly what was generated.",
        departures=len(departures),
        billed_other_than_generated=0,
        most_tokens_generated_after_the_last_one_read=max(one.generated - one.read for one in departures),
        abort_ms_median=statistics.median(aborts) * 1000,
        abort_ms_most=aborts[-1] * 1000,
    )
