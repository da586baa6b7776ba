"""Readers at their own pace: who does not read slows nobody, and costs memory for the tokens once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from support.cached import Asker, cached_server
from support.flights import NO_DRIFT
from support.server import ServerProcess
from support.slow_readers import SETTINGS, crowd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("slow"), **SETTINGS) as running:
        yield running


def test_slow_followers_slow_nobody_and_get_it_all(server: ServerProcess) -> None:
    """Eight that read nothing until the others are through, of a long answer."""
    with closing(Asker(server)) as asker:
        seen = crowd(server, asker, num_slow=8, num_tokens=12_000)
        assert seen.fast_s < seen.engine_s + 3
        assert seen.slow_finished_before < 8
        assert seen.whole == 12
        assert seen.growth_mib < 40
        assert asker.drift() == NO_DRIFT
        assert asker.ledger.num_open() == 0


def test_what_nobody_reads_to_its_end_is_let_go_of(server: ServerProcess) -> None:
    """All leave without having read it: the engine is told, and everybody is settled."""
    with closing(Asker(server)) as asker:
        seen = crowd(server, asker, num_slow=5, num_tokens=12_000, leave=True)
        assert seen.whole == 0
        assert asker.drift() == NO_DRIFT
