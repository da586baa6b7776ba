"""The ledger against a model of it, under every order of reserving, checkpointing, settling, crashing and retrying."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay.ledger.account import ALLOWANCE, Account
from forebay.ledger.ledger import Ledger
from forebay.ledger.prices import PriceTable
from forebay.ledger.verify import verify
from forebay.observe.record import RequestRecord
from forebay.stores.database import Database
from forebay.stores.sqlite import open_for_reading
from forebay.types import Caller, Usage

SECRET = b"s" * 32
PRICES = PriceTable.model_validate({"version": "1", "models": {"*": {"prompt": 1_500_000, "completion": 2_000_000}}})
CALLERS = (Caller("red", "r1"), Caller("red", "r2"), Caller("blue", "b1"))
COMMON: dict[str, Any] = {"at": 1_800_000_000_000, "on_settled": lambda num_tokens, cost: None}


@dataclass
class Request:
    """What the model knows of one. `delivered` are tokens that left, `generated` those that the engine has made."""

    caller: Caller
    prompt: int
    limit: int
    generated: int = 0
    delivered: int = 0
    billed: tuple[int, int] | None = None
    crashed: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """A real file. A crash is a copy of the file as it lies on disk, on which another ledger begins."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.num_crashes = 0
        self.requests: dict[str, Request] = {}
        self.accounts: dict[str, Account] = {}
        self.strict = False

    def run_async(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    @initialize(strict=st.booleans())
    def start(self, strict: bool) -> None:
        self.strict = strict
        self.folder = self.root / "0"
        self._begin()

    def _begin(self) -> None:
        self.ledger = Ledger(Database(self.folder), SECRET, PRICES, strict=self.strict, lease_s=600)
        self.run_async(self._begin_on_loop())

    async def _begin_on_loop(self) -> None:
        self.ledger.begin()

    @rule(who=st.sampled_from(CALLERS), prompt=st.integers(1, 50), limit=st.integers(1, 120))
    def reserve(self, who: Caller, prompt: int, limit: int) -> None:
        request_id = f"{len(self.requests):032x}"
        record = RequestRecord(request_id, "POST", route="/r", model="m", stream=True)
        self.requests[request_id] = Request(who, prompt, limit)
        cost = PRICES.models["*"].most(prompt, limit)
        self.accounts[request_id] = self.run_async(
            self.ledger.open(who, record, prompt_tokens=prompt, completion_tokens=limit, cost=cost, **COMMON)
        )

    @rule(who=st.sampled_from(CALLERS))
    def reserve_for_a_client_that_leaves_at_once(self, who: Caller) -> None:
        """Cancelled while the row is on its way to the disk."""
        request_id = f"{len(self.requests):032x}"
        record = RequestRecord(request_id, "POST", route="/r", model="m")
        self.requests[request_id] = Request(who, 3, 5, billed=(0, 0))

        async def reserve() -> None:
            opening = asyncio.ensure_future(
                self.ledger.open(who, record, prompt_tokens=3, completion_tokens=5, cost=99, **COMMON)
            )
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])

        self.run_async(reserve())

    @rule(pick=st.integers(0), tokens=st.integers(1, 40))
    def deliver(self, pick: int, tokens: int) -> None:
        """The engine makes some tokens and the client gets them, as far as the ledger lets them go."""
        if (request_id := self._pick(pick)) is None:
            return
        request, account = self.requests[request_id], self.accounts[request_id]
        request.generated = min(request.generated + tokens, request.limit)
        self.run_async(account.cover(request.generated))
        request.delivered = request.generated

    @rule(pick=st.integers(0), tokens=st.integers(1, 20))
    def generate_unseen(self, pick: int, tokens: int) -> None:
        """The engine makes some that nobody has got yet."""
        if (request_id := self._pick(pick)) is not None:
            request = self.requests[request_id]
            request.generated = min(request.generated + tokens, request.limit)

    @rule(pick=st.integers(0), outcome=st.sampled_from(["complete", "client_gone", "failed"]), again=st.booleans())
    def settle(self, pick: int, outcome: Any, again: bool) -> None:
        """Once, or by two paths that both believe that it is theirs to do."""
        if (request_id := self._pick(pick)) is None:
            return
        request, account = self.requests[request_id], self.accounts.pop(request_id)
        generated = Usage(request.prompt, request.generated)
        billed = generated
        if outcome == "failed":
            billed = Usage(request.prompt if request.delivered else 0, request.delivered)
        account.settle(outcome, billed, generated)
        if again:
            account.settle("failed", Usage(0, 0), generated)
            account.settled = False
            account.settle(outcome, billed, generated)
        request.billed = (billed.prompt_tokens, billed.completion_tokens)

    @rule(pick=st.integers(0))
    def lose_sight(self, pick: int) -> None:
        """A request whose task is gone: its lease ends."""
        if (request_id := self._pick(pick)) is not None:
            request = self.requests[request_id]
            self.accounts.pop(request_id).opened -= 10_000
            self.run_async(self._tick())
            request.billed = (request.prompt if request.delivered else 0, request.delivered)

    async def _tick(self) -> None:
        self.ledger.tick()

    @rule()
    def stop_and_start(self) -> None:
        """In order: whoever is still open then has failed at what it was given."""
        for request_id in list(self.accounts):
            request = self.requests[request_id]
            request.billed = (request.prompt if request.delivered else 0, request.delivered)
            del self.accounts[request_id]
        self.run_async(self.ledger.close(10))
        self._begin()

    @rule(flush=st.booleans())
    def crash(self, flush: bool) -> None:
        """What was handed to the writer and is not committed yet may or may not survive."""
        if flush:
            self._flush()
        else:
            for request in self.requests.values():
                # Settlements on their way may be lost; the sweep then settles at the checkpoint.
                request.crashed = request.crashed or request.billed is not None
        self._crash_to(self._image())

    @rule(pick=st.integers(0), tokens=st.sampled_from((1, ALLOWANCE, ALLOWANCE + 1)) | st.integers(1, 40))
    def crash_in_delivery(self, pick: int, tokens: int) -> None:
        """Before the disk has seen anything of tokens that may leave without waiting for it."""
        if (request_id := self._pick(pick)) is None:
            return
        request = self.requests[request_id]
        request.generated = min(request.generated + tokens, request.limit)
        image = self._image()
        if self.accounts[request_id].covers(request.generated):
            request.delivered = request.generated
        self._crash_to(image)

    def _image(self) -> Path:
        """The files as they lie on disk now."""
        self.num_crashes += 1
        image = self.root / str(self.num_crashes)
        shutil.copytree(self.folder, image)
        return image

    def _crash_to(self, image: Path) -> None:
        self.run_async(self.ledger.close(10))
        shutil.rmtree(self.folder)
        self.folder = image
        for request_id in list(self.accounts):
            del self.accounts[request_id]
            self.requests[request_id].crashed = True
        self._begin()

    def _flush(self) -> None:
        self.run_async(self.ledger.flush())

    def _pick(self, pick: int) -> str | None:
        return list(self.accounts)[pick % len(self.accounts)] if self.accounts else None

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self._flush()
        allowance = 0 if self.strict else ALLOWANCE
        with closing(open_for_reading(self.folder)) as connection:
            connection.execute("BEGIN")
            assert verify(connection, SECRET) == []
            columns = "request_id, tenant, key_id, prompt_tokens, completion_tokens, cost, recovered"
            settled = {
                row[0]: row[1:] for row in connection.execute(f"SELECT {columns} FROM entries WHERE kind = 'settle'")
            }
            opened = {row[0] for row in connection.execute("SELECT request_id FROM open_requests")}
            totals = dict(connection.execute("SELECT key_id, sum(num_tokens) FROM daily_totals GROUP BY key_id"))
        assert opened == self.accounts.keys()
        sums = dict.fromkeys(totals, 0)
        for request_id, request in self.requests.items():
            if request_id in opened:
                continue
            if request_id not in settled:
                # Only a reservation that its own client did not wait for may never have been written.
                assert request.billed == (0, 0)
                continue
            tenant, key_id, prompt, completion, cost, recovered = settled[request_id]
            assert (tenant, key_id) == (request.caller.tenant, request.caller.key_id)
            sums[key_id] += prompt + completion
            assert cost == PRICES.models["*"].cost(Usage(prompt, completion))
            assert completion <= request.generated
            if recovered:
                assert request.crashed
                assert request.delivered - completion <= allowance
                assert prompt == (request.prompt if completion else 0)
            else:
                assert (prompt, completion) == request.billed
                assert request.delivered <= completion
        assert sums == totals

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.run_async(self.ledger.close(10))
        self.loop.close()
        shutil.rmtree(self.root)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.generate,),  # add Phase.shrink to look into a failure
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
