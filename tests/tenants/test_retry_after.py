"""Who comes back when he was told to is let in: crowds of clients, simulated."""

from __future__ import annotations

import pytest

from forebay.types import Policy
from support.simulation import CROWDS, MINUTES, Crowd, Simulation, around


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_a_client_that_waits_as_told_is_let_in(crowd: Crowd) -> None:
    """In at least 95 of 100 cases, however many were refused at once, with newcomers among them that never return."""
    simulation = Simulation(crowd).run()
    assert simulation.told > 50
    assert simulation.kept / simulation.told >= 0.95, (simulation.kept, simulation.told)


@pytest.mark.parametrize("passers_by", [0, 50])
def test_promises_cost_no_throughput(passers_by: float) -> None:
    """What is set aside and not taken is not lost: the whole limit is used, also beside 50 newcomers a second."""
    requests = Simulation(Crowd(Policy(60), 20, passers_by=passers_by)).run()
    assert 0.98 * 60 * (MINUTES + 1) <= requests.admitted <= 60 * (MINUTES + 1)
    if not passers_by:
        places = Simulation(Crowd(Policy(max_concurrency=8), 40, lasts_ms=around(2000))).run()
        assert places.busy_ms / (MINUTES * 60_000) > 0.7 * 8
