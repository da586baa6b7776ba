"""Work that the server does for itself: accounts that nobody is charged for, whatever overlaps and however it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forebay.ledger.ledger import Ledger
from forebay.ledger.own import OWN, OwnWork
from forebay.ledger.verify import verify
from forebay.stores.database import Database
from forebay.stores.sqlite import open_for_reading
from forebay.types import EngineWork, Usage


@dataclass
class Stream:
    usage: Usage

    @property
    def num_tokens(self) -> int:
        return self.usage.completion_tokens

    @property
    def work(self) -> EngineWork:
        return EngineWork(self.usage.prompt_tokens - self.usage.cached_tokens, self.usage.completion_tokens)


async def test_what_overlaps_is_settled_once_it_is_over(tmp_path: Path) -> None:
    """An account that new work has left behind is settled with its last stream, at what the streams say then; the sums
    of the rows are the engine's, and the ledger verifies."""
    ledger = Ledger(Database(tmp_path), b"secret", None, strict=False, lease_s=600)
    ledger.begin()
    own = OwnWork(ledger, span_s=0.0)
    streams = [Stream(Usage(100, 1, 40)), Stream(Usage(7, 0)), Stream(Usage(300, 2, 10))]
    accounts = []
    for stream in streams:
        account = await own.begin("model")
        account.add(stream)
        accounts.append(account)
    assert len(set(map(id, accounts))) == ledger.num_open == 3
    streams[0].usage = Usage(100, 5, 40)
    own.end(accounts[0], complete=True)
    own.end(accounts[1], complete=False)
    assert ledger.num_open == 1
    own.tick()
    assert ledger.num_open == 1
    own.end(accounts[2], complete=True)
    own.tick()
    assert ledger.num_open == 0
    await ledger.flush()
    file = open_for_reading(tmp_path)
    rows = file.execute(
        "SELECT outcome, prompt_tokens, cached_tokens, completion_tokens, cost FROM entries WHERE kind = 'uncharged' "
        "AND tenant = ? ORDER BY seq",
        (OWN.tenant,),
    ).fetchall()
    assert rows == [("complete", 100, 40, 5, 0), ("failed", 7, 0, 0, 0), ("complete", 300, 10, 2, 0)]
    assert file.execute(
        "SELECT sum(prompt_tokens + completion_tokens) FROM entries WHERE kind = 'settle'"
    ).fetchone() == (0,)
    assert verify(file, b"secret") == []
    file.close()
    await ledger.close(5)
