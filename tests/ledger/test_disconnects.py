"""Clients that leave a stream after each number of tokens: aborted at once, billed to the token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.leaving import WAYS, leave_after
from support.ledger import LedgerFile
from support.server import ServerProcess, journalled_server
from support.witness import Witness

NOTICED_S = 0.25
ATTEMPTS = 4
"""A busy machine can be late; one that is never in time is not busy."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with journalled_server(tmp_path_factory.mktemp("leaving")) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_tokens", [0, 1, 7, 8, 16, 17, 64])
def test_billed_is_what_was_generated(server: ServerProcess, witness: Witness, num_tokens: int, way: str) -> None:
    """Before the first token, at it, and around the checkpoints; the engine is told within 250 ms."""
    departures = []
    for _ in range(ATTEMPTS):
        departures.append(leave_after(server, witness, num_tokens, way))
        assert departures[-1].outcome == "client_gone"
        assert departures[-1].read <= departures[-1].billed == departures[-1].generated
        if departures[-1].abort_s <= NOTICED_S:
            break
    assert departures[-1].abort_s <= NOTICED_S, departures
    witness.wait_idle()
    assert LedgerFile(server.data_dir).faults() == []
